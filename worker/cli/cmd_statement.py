"""`archiver statement`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, closing
from enum import StrEnum
from typing import Annotated

import typer

from storage_backends.errors import StorageError
from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings
from worker.errors import SettingsError


class Action(StrEnum):
    NEW_KEY = "new-key"


def statement(
    action: Annotated[
        Action | None,
        typer.Argument(metavar="[new-key]", help="`new-key`: print a new key, and store nothing."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the signed monthly statements that are due: statements/YYYY-MM.json at each destination.

    A statement names every manifest and end record of a month with its SHA-256, and the SHA-256 of the statement
    before. A month is due when its retention is over. docs/verify_statements.py verifies them without this program.
    Idempotent, so it may run each day. Exit code 1 when an earlier statement was altered, 3 when a destination or the
    time stamps cannot be reached; the others are done all the same.

    Examples:
      archiver statement new-key
      archiver statement
    """
    if action is Action.NEW_KEY:
        _new_key(as_json=as_json)
        return
    from importlib.metadata import version

    from archiver.core.records.statements import SigningKey, StatementRefused
    from archiver.core.upkeep.statement_report import record_statements
    from archiver.core.upkeep.stating import TimeStampRefused, state
    from archiver.http import trust
    from worker.bootstrap import DISTRIBUTION
    from worker.time_stamps import TimeStampAuthority
    from worker.views.text import shown

    settings = read_settings()
    if settings.statement_key is None:
        raise SettingsError(
            "ARCHIVER_STATEMENT_KEY is not set: a statement is signed. `archiver statement new-key` prints a new key; "
            "with another key than last month's, auditors need both public keys."
        )
    key, code = SigningKey(settings.statement_key.get_secret_value()), ExitCode.OK
    with ExitStack() as stack:
        stamps = None
        if settings.statement_tsa_url is not None:
            authorities = trust.authorities(settings.ca_file)
            stamps = stack.enter_context(closing(TimeStampAuthority(settings.statement_tsa_url, authorities)))
        services = stack.enter_context(open_services(settings))
        progress = stack.enter_context(progress_shown(quiet=as_json))
        failed: dict[str, str | None] = {}
        for store in services.destinations:
            made = state(
                store,
                key,
                clock=services.clock,
                retention=settings.retention,
                version=version(DISTRIBUTION),
                stamps=stamps,
                on_progress=progress,
            )
            count, failed[store.name] = 0, None
            try:
                for each in made:
                    count += 1
                    if as_json:
                        print_json(
                            json.dumps(
                                {"destination": store.name, **{n: getattr(each, n) for n in each.__slots__}}
                            )
                        )
                    elif each.written or each.stamped:
                        what = "written" if each.written else "stamped"
                        out.print(
                            shown(
                                f"{store.name}/{each.key}: {each.assets:,} assets, {each.ends:,} ends, {what}"
                            )
                        )
            except StatementRefused as error:
                code = max(code, ExitCode.NOT_SAVED)
                failed[store.name] = str(error)
                err.print(shown(str(error), "red"))
            except (StorageError, TimeStampRefused) as error:
                code = ExitCode.UNREACHABLE
                if isinstance(error, StorageError):
                    failed[store.name] = str(error)
                err.print(shown(f"{store.name}: {error}", "red"))
            else:
                if not as_json:
                    out.print(shown(f"{store.name}: {count:,} statements; none is lacking."))
        record_statements(services.ledger, failed, services.clock())
    sys.exit(code)


def _new_key(*, as_json: bool) -> None:
    from archiver.core.records.statements import SigningKey

    text, key = SigningKey.new()
    if as_json:
        print_json(json.dumps({"statement_key": text, "public_key_pem": key.public_pem}))
        return
    print_line = out.file.write
    print_line(f"ARCHIVER_STATEMENT_KEY={text}\n\n{key.public_pem}\n")
    err.print(
        "The first line is the secret key: put it into .env or your secret store, and keep a copy; nothing was stored. "
        "The rest is the public key: give it to whoever is to verify, apart from the bucket."
    )
