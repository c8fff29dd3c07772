"""`archiver list`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.opening import open_ledger
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings, time_of
from worker.logs.escaping import escaped

if TYPE_CHECKING:
    from archiver.core.upkeep.phases import OnProgress
    from archiver.ledger.models import Row
    from archiver.ledger.redis.ledger import RedisLedger
    from worker.settings import Settings

COLUMNS = (
    "asset_id",
    "type",
    "state",
    "room_id",
    "session_id",
    "created_at",
    "expires_at",
    "size_bytes",
    "stored_bytes",
    "reason",
)
_SHOWN = 1000  # rows of a table; more are for programs


def list_assets(
    room: Annotated[str, typer.Option("--room", help="Only of this room id.")] = "",
    session: Annotated[str, typer.Option("--session", help="Only of this session id.")] = "",
    user: Annotated[
        str,
        typer.Option(
            "--user",
            metavar="USER_ID",
            help="Only of sessions that this user was in, by what the destinations hold.",
        ),
    ] = "",
    asset_type: Annotated[
        str, typer.Option("--type", help="Only of this type, such as room-composite.")
    ] = "",
    state: Annotated[
        str, typer.Option("--state", help="Only in this state, such as waiting or archived.")
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Created at this time or later.")
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Created before this time.")] = "",
    at_risk: Annotated[bool, typer.Option("--at-risk", help="Only what is not saved and ends soon.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
    as_json: Json = False,
) -> None:
    """List assets by state and deadline, as the ledger knows them.

    USER_ID is what your app gave 100ms as user_id; see ARCHIVER_KEEP_SESSIONS. What the ledger does not know of a
    user's sessions is listed from the manifests, so --user works from the destinations alone. TIME is RFC 3339, or a
    date (UTC). With --json each line is one object. Without --json or --csv at most 1,000 rows are shown.

    Examples:
      archiver list --at-risk
      archiver list --user user-17
      archiver list --room 6501aa... --since 2026-03-01 --csv > room.csv
    """
    from archiver.ledger.models import AssetState
    from worker.views.rows import row_json, rows_view

    if state and state not in set(AssetState):
        raise typer.BadParameter(f"one of {', '.join(AssetState)}", param_hint="--state")
    first, last = (
        time_of(text, name) if text else None for text, name in ((since, "--since"), (until, "--until"))
    )
    settings = read_settings()
    with ExitStack() as stack:
        ledger = _opened_ledger(stack, settings, is_needed=not user)
        now = ledger.now() if ledger is not None else datetime.now(UTC)
        sessions, stored = _of_user(settings, ledger, user) if user else (None, ())

        def all_rows(on_progress: OnProgress) -> Iterator[Row]:
            from archiver.core.health import UNSAVED_STATES

            if ledger is not None:
                if at_risk:
                    rows = ledger.rows(UNSAVED_STATES, expiring_before=now + settings.at_risk)
                else:
                    rows = ledger.rows([AssetState(state)] if state else None)
                counts = ledger.counts()
                total = counts.states.get(AssetState(state), 0) if state else counts.seen
                for number, row in enumerate(rows, 1):
                    on_progress("reading the ledger", number, None if at_risk else max(total, number))
                    if sessions is None or row.session_id in sessions:
                        yield row
            if not at_risk:
                yield from stored

        def wanted(on_progress: OnProgress) -> Iterator[Row]:
            for row in all_rows(on_progress):
                if room not in ("", row.room_id) or session not in ("", row.session_id):
                    continue
                if asset_type not in ("", row.type) or state not in ("", row.state):
                    continue
                if _is_between(row.created_at, first, last):
                    yield row

        # rows that come on the terminal would tear a bar apart, and show themselves how far it is
        if as_json or as_csv:
            with progress_shown(quiet=out.is_terminal) as progress:
                found = wanted(progress)
                if as_json:
                    for row in found:
                        print_json(json.dumps(row_json(row)))
                else:
                    writer = csv.writer(sys.stdout)
                    writer.writerow(COLUMNS)
                    writer.writerows(_cells(row) for row in found)
        else:
            with progress_shown() as progress:
                shown_rows = tuple(islice(wanted(progress), _SHOWN + 1))
            out.print(rows_view("Assets", shown_rows[:_SHOWN], now) if shown_rows else "No asset.")
            if len(shown_rows) > _SHOWN:
                err.print(
                    f"There are more than {_SHOWN:,}: use --csv or --json, or a filter.", style="yellow"
                )
    sys.exit(ExitCode.OK)


def _opened_ledger(stack: ExitStack, settings: Settings, *, is_needed: bool) -> RedisLedger | None:
    """None when it does not answer and is not needed. Raises LedgerError, SupervisorError, SettingsError."""
    from archiver.ledger.errors import LedgerError

    try:
        return stack.enter_context(open_ledger(settings))
    except LedgerError as error:
        if is_needed:
            raise
        err.print(f"Listed from the destinations alone: {escaped(str(error))}", style="yellow", markup=False)
        return None


def _of_user(
    settings: Settings, ledger: RedisLedger | None, user: str
) -> tuple[Collection[str], Sequence[Row]]:
    """Return the ids of the user's sessions, and the assets of these that the ledger does not know. Raises
    SettingsError, StorageError, LedgerError."""
    from archiver.core.records.session_records import of_user
    from archiver.core.upkeep.user_recordings import stored_of_sessions
    from storage_backends.registry import open_destinations

    with ExitStack() as stack, progress_shown(quiet=out.is_terminal) as progress:
        stores = [stack.enter_context(closing(store)) for store in open_destinations(settings.destinations)]
        found = of_user(stores, user, lambda number: progress("reading sessions", number))
        stored = stored_of_sessions(
            ledger,
            stores,
            found,
            set(),
            progress,
            retention=settings.retention,
            key_template=settings.key_template,
        )
    if not found:
        err.print(
            f"No session with user {escaped(user)} is kept at any destination.", style="yellow", markup=False
        )
    return found.keys(), [each.row for each in stored]


def _is_between(created_at: datetime | None, first: datetime | None, last: datetime | None) -> bool:
    """An asset without a date is listed only when no time is asked for."""
    if created_at is None:
        return first is None and last is None
    return (first is None or created_at >= first) and (last is None or created_at < last)


def _cells(row: Row) -> list[object]:
    values = (getattr(row, name) for name in COLUMNS)
    return [_safe(value) for value in values]


def _safe(value: object) -> object:
    """A cell that a spreadsheet does not take for a formula (OWASP, CSV injection)."""
    if isinstance(value, datetime):
        return value.isoformat()
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text
