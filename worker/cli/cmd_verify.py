"""`archiver verify`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from archiver.ledger.errors import LedgerError
from storage_backends.errors import StorageError
from worker.cli.opening import open_ledger
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings
from worker.doctor.check_result import CheckResult, Verdict
from worker.errors import SettingsError, SupervisorError
from worker.logs.escaping import escaped

if TYPE_CHECKING:
    from archiver.core.upkeep.scrub_copy import CopyChecker
    from storage_backends.base import ObjectKey, StorageBackend
    from worker.settings import Settings
    from worker.verify import Checked

LEDGER_UNAVAILABLE = (LedgerError, SettingsError, SupervisorError)


def verify(
    asset_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="All, when none is named.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare names and sizes only; read nothing.")
    ] = False,
    without_ledger: Annotated[
        bool,
        typer.Option(
            "--without-ledger",
            help="Check the destinations alone. Assets that are missing altogether are not noticed.",
        ),
    ] = False,
    no_mark: Annotated[
        bool,
        typer.Option(
            "--no-mark", help="Change nothing when a copy is damaged, as with credentials that only read."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="Write a report for an auditor: FILE.json and FILE.html."
        ),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="With --report: assets created then or later.")
    ] = "",
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="With --report: assets created before then.")
    ] = "",
    at_rest: Annotated[
        str,
        typer.Option(
            "--at-rest",
            metavar="cold|all",
            help="On AWS: let S3 Batch Operations compute the checksums, also of cold copies. Costs money.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Verify that what is archived is whole: read every byte back and compare it with the manifests, and the manifests
    with the ledger.

    An asset that the ledger calls archived and that has no manifest at a destination is reported. A damaged copy is
    read again, and marked as the scrub does: it is copied again while 100ms has it, else replicated from a whole copy,
    at once with `archiver replicate`. --no-mark and --without-ledger mark nothing. A copy that was found damaged and is
    whole again is archived again in the ledger. One unreadable copy does not end the check.

    Exit code 0 when all is whole and nothing is missing, 1 when something is not, 3 when something could not be
    checked or the ledger could not be asked.

    --report covers every asset that 100ms showed in the period and every manifest of it: state, digest of the manifest,
    last full read, last drill. TIME is RFC 3339, or a date (UTC). Exit code 1 then too when an asset is not saved.

    --at-rest begins a job of S3 Batch Operations at each destination with batch_role_arn, for the copies that the scrub
    found in a cold class, or all. AWS reads them where they are: nothing is downloaded or restored. Run it again, hours
    later, to compare: exit code 3 until then.

    Examples:
      archiver verify
      archiver verify --quick
      archiver verify 6400c0d3e1b2a3c4d5e6f708 --json
      archiver verify --without-ledger   where there is no Redis
      archiver verify --no-mark
      archiver verify --at-rest cold
      archiver verify --since 2026-03-01 --until 2026-04-01 --report march
    """
    if at_rest:
        if at_rest not in ("cold", "all"):
            raise typer.BadParameter("it is cold or all", param_hint="--at-rest")
        if asset_ids or quick or without_ledger or no_mark or report is not None or since or until:
            raise typer.BadParameter("goes with --json alone", param_hint="--at-rest")
        from worker.cli.at_rest import verify_at_rest

        sys.exit(verify_at_rest(read_settings(), at_rest, as_json=as_json))
    if report is not None:
        if asset_ids or without_ledger:
            raise typer.BadParameter(
                "a report is of a period and of the ledger: name no ID", param_hint="--report"
            )
        from worker.cli.reporting import write_report

        write_report(report, since, until, quick=quick, as_json=as_json)
        return
    if since or until:
        raise typer.BadParameter("goes with --report FILE", param_hint="--since, --until")
    from storage_backends.registry import open_destinations
    from worker.verify import Tally
    from worker.verify import verify as verify_all
    from worker.views.verify import checked_view, tally_view

    settings = read_settings()
    destinations = open_destinations(settings.destinations)
    stored, trouble = (None, None) if without_ledger else _stored_by_the_ledger(settings)
    unknown = _unknown_destinations(settings, destinations) if stored is not None else {}
    for finding in unknown.values():
        text = f"{finding.subject} {finding.detail}. {finding.remedy}"
        err.print(Text(escaped(text), style="bold red"))
    not_known = {name: f"it {finding.detail}" for name, finding in unknown.items()}
    tally = Tally()
    bad: set[str] = set()
    whole: set[str] = set()
    phase, total = "listing and comparing" if quick else "reading back", [0]
    with ExitStack() as stack:
        progress = stack.enter_context(progress_shown(quiet=as_json))
        marks = stored is not None and not unknown and not no_mark
        marker = stack.enter_context(_marker(settings, destinations)) if marks else None
        checks = verify_all(
            destinations,
            asset_ids or [],
            quick=quick,
            stored=stored,
            unknown=not_known,
            found=total.append,
        )
        for checked in checks:
            tally.add(checked)
            progress(phase, tally.copies + tally.unchecked, total[-1], size_bytes=tally.read_bytes)
            if checked.problems:
                bad.add(checked.asset_id)
                if marker is not None:
                    _mark(marker, checked, quick=quick)
            elif checked.ok and not checked.cold:
                whole.add(checked.asset_id)
            if as_json:
                fields = {name: getattr(checked, name) for name in checked.__slots__}
                print_json(json.dumps({**fields, "ok": checked.ok}, default=datetime.isoformat))
            elif not checked.ok or (checked.cold and asset_ids):
                out.print(checked_view(checked))
    if tally.restored:
        _record_restored(settings, destinations, tally.restored, ask_ledger=not without_ledger)
    if stored is not None and not unknown:
        _record_verified(
            settings, bad, whole - bad, everything=not asset_ids and not tally.unchecked and not tally.cold
        )
    for store in destinations:
        store.close()
    names = [store.name for store in destinations]
    if as_json:
        if trouble is not None:
            err.print(Text(f"Not compared with the ledger: {escaped(trouble)}", style="yellow"))
    else:
        out.print(
            tally_view(tally, named=asset_ids or [], quick=quick, stored=stored, ledger_trouble=trouble)
        )
    if empty := [name for name in names if name not in tally.destinations]:
        err.print(Text(escaped(f"There is no manifest at {', '.join(empty)}: nothing is archived there.")))
    if unknown or tally.bad or tally.doubted or empty:
        sys.exit(ExitCode.NOT_SAVED)
    sys.exit(ExitCode.UNREACHABLE if tally.unchecked or trouble is not None else ExitCode.OK)


@contextmanager
def _marker(
    settings: Settings, destinations: Sequence[StorageBackend]
) -> Iterator[tuple[CopyChecker, Mapping[str, StorageBackend]]]:
    """Yield what marks a damaged copy, with the destinations by name. Raises LedgerError."""
    from archiver.core.destinations.guarded import guarded
    from archiver.core.upkeep.erasing import Eraser
    from archiver.core.upkeep.expiring import Expirer
    from archiver.core.upkeep.scrub_copy import CopyChecker
    from archiver.core.upkeep.scrub_plan import ScrubRules
    from archiver.ledger.clock import LedgerClock
    from worker.identities import build_identities

    with open_ledger(settings) as ledger:
        clock = LedgerClock(ledger)
        stores = guarded(destinations, build_identities(settings, ledger, destinations, clock))
        eraser = Eraser(ledger=ledger, destinations=stores, clock=clock)
        expirer = Expirer(
            ledger=ledger, destinations=stores, eraser=eraser, terms=settings.keep_terms, clock=clock
        )
        checker = CopyChecker(ledger, stores, clock, ScrubRules(), expirer.term_is_over)
        yield checker, {store.name: store for store in stores}


def _mark(marker: tuple[CopyChecker, Mapping[str, StorageBackend]], checked: Checked, *, quick: bool) -> None:
    """Mark a damaged copy. Prints a warning when that is not possible: the scrub does it later."""
    checker, stores = marker
    if checked.key is None:
        return
    try:
        checker.mark(stores[checked.destination], checked.key, in_full=not quick)
    except (StorageError, LedgerError) as error:
        text = f"{checked.asset_id} could not be marked as damaged at {checked.destination}: {error}"
        err.print(Text(escaped(text), style="yellow"))


def _stored_by_the_ledger(settings: Settings) -> tuple[Mapping[str, ObjectKey] | None, str | None]:
    """Return what should be archived; or None, and why that is not known."""
    from worker.verify import stored_by

    if settings.redis_url is None and not settings.state_dir.exists():
        return (
            None,
            f"there is none in {settings.state_dir} (ARCHIVER_STATE_DIR), and ARCHIVER_REDIS_URL is not set.",
        )
    try:
        with open_ledger(settings) as ledger:
            if ledger.counts().seen == 0:
                return None, "it is empty. The next sweep fills it again: archiver sweep"
            return stored_by(ledger), None
    except LEDGER_UNAVAILABLE as error:
        return None, str(error)


def _unknown_destinations(
    settings: Settings, destinations: Sequence[StorageBackend]
) -> dict[str, CheckResult]:
    """Return what `doctor` says of each destination whose marker is not the one that the ledger knows."""
    from archiver.ledger.clock import LedgerClock
    from worker.doctor.identities import check_identity
    from worker.identities import build_identities

    try:
        with open_ledger(settings) as ledger:
            identities = build_identities(settings, ledger, destinations, LedgerClock(ledger))
            found = [check_identity(store.name, identities) for store in destinations]
    except LEDGER_UNAVAILABLE:  # reported by the comparison with the ledger
        return {}
    wrong = [finding for finding in found if finding is not None and finding.verdict is Verdict.PROBLEM]
    return {finding.subject: finding for finding in wrong}


def _record_verified(settings: Settings, bad: set[str], whole: set[str], *, everything: bool) -> None:
    """Let `status` know the result. Prints a warning when the ledger cannot be reached."""
    from archiver.core.upkeep.reports import record_verify

    try:
        with open_ledger(settings) as ledger:
            record_verify(ledger, damaged=bad, whole=whole, everything=everything)
    except LEDGER_UNAVAILABLE as error:
        err.print(Text(f"`status` does not know of this: {escaped(str(error))}", style="yellow"))


def _record_restored(
    settings: Settings, destinations: Sequence[StorageBackend], manifests: set[ObjectKey], *, ask_ledger: bool
) -> None:
    """Archive in the ledger what is whole again. Prints a warning when the ledger cannot be reached."""
    from archiver.core.destinations.guarded import guarded
    from archiver.core.upkeep.reconcile import Reconciler
    from archiver.ledger.clock import LedgerClock
    from worker.bootstrap import build_scope
    from worker.identities import build_identities

    later = "What is whole again is not in the ledger yet; `reconcile` records it within the hour"
    if not ask_ledger:
        err.print(f"{later}.", style="yellow")
        return
    try:
        with open_ledger(settings) as ledger:
            clock = LedgerClock(ledger)
            identities = build_identities(settings, ledger, destinations, clock)
            Reconciler(
                ledger=ledger,
                destinations=guarded(destinations, identities),
                scope=build_scope(settings),
                clock=clock,
                identities=identities,
            ).restored(manifests)
    except LEDGER_UNAVAILABLE as error:
        err.print(Text(escaped(f"{later}: {error}"), style="yellow"))
