"""`archiver verify --at-rest`."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, assert_never

from storage_backends.errors import StorageError
from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, err, out, print_json
from worker.errors import SettingsError

if TYPE_CHECKING:
    from archiver.core.upkeep.at_rest import Compared, Failed, Nothing, UnderWay
    from worker.settings import Settings


def verify_at_rest(settings: Settings, scope: str, *, as_json: bool) -> ExitCode:
    """Begin a job at each destination that is set up for it, or go on with the one that was begun. Raises
    SettingsError, LedgerError."""
    from archiver.core.upkeep.at_rest import AtRestVerifier, Scope
    from archiver.core.upkeep.scrub_copy import CopyChecker
    from storage_backends.optional import checksums_of
    from worker.bootstrap import build_scrub_rules
    from worker.views.text import shown

    codes, able, rules = [ExitCode.OK], 0, build_scrub_rules(settings)
    with open_services(settings, own_ledger=True) as services, progress_shown(quiet=as_json) as progress:
        checker = CopyChecker(services.ledger, services.destinations, services.clock, rules)
        for store in services.destinations:
            jobs = checksums_of(store)
            if jobs is None:
                continue
            able += 1
            verifier = AtRestVerifier(
                ledger=services.ledger,
                store=store,
                jobs=jobs,
                clock=services.clock,
                report=checker.report,
                full_every=rules.full_every,
            )
            try:
                result = verifier.run(Scope(scope), progress)
            except StorageError as error:
                codes.append(ExitCode.UNREACHABLE)
                err.print(shown(f"{store.name}: {error}", "red"))
                continue
            codes.append(_code(result))
            if as_json:
                said = {"destination": store.name, "result": type(result).__name__, **asdict(result)}
                print_json(json.dumps(said, default=datetime.isoformat))
            else:
                for line, style in _lines(result):
                    out.print(shown(f"{store.name}: {line}", style))
    if not able:
        raise SettingsError(
            "no destination is set up for --at-rest: it needs S3 on AWS, and batch_role_arn=ARN in the URL of the "
            "destination (docs/storage-backends.md)"
        )
    return ExitCode.NOT_SAVED if ExitCode.NOT_SAVED in codes else max(codes)


def _code(result: UnderWay | Nothing | Failed | Compared) -> ExitCode:
    from archiver.core.upkeep.at_rest import Compared, Nothing

    if isinstance(result, Nothing):
        return ExitCode.OK
    if isinstance(result, Compared) and result.damaged:
        return ExitCode.NOT_SAVED
    return ExitCode.OK if isinstance(result, Compared) and not result.unknown else ExitCode.UNREACHABLE


def _lines(result: UnderWay | Nothing | Failed | Compared) -> list[tuple[str, str]]:
    from archiver.core.upkeep.at_rest import Compared, Failed, Nothing, UnderWay

    match result:
        case UnderWay(status, done, total, began_at):
            since = f"{began_at:%Y-%m-%d %H:%M} UTC"
            text = (
                f"a job is under way since {since} ({status}): {done:,} of {total:,} objects. Run the same command "
                "later to compare its report."
            )
            return [(text, "")]
        case Nothing(why):
            return [(f"nothing to verify at rest: {why}.", "")]
        case Failed(why):
            return [(f"nothing is known: {why}. The next run begins another job.", "red")]
        case Compared():
            lines = [
                (f"{copy.asset_id}: {problem}", "bold red")
                for copy in result.copies
                for problem in copy.problems
            ]
            lines += [
                (f"{copy.asset_id}: not verified: {copy.unknown}", "yellow")
                for copy in result.copies
                if copy.unknown is not None
            ]
            whole = len(result.copies) - sum(bool(c.problems or c.unknown) for c in result.copies)
            what = f"{whole:,} of {len(result.copies):,} copies are whole, read at rest ({result.objects:,} objects)."
            return [*lines, (what, "bold green" if whole == len(result.copies) else "bold red")]
        case _:
            assert_never(result)
