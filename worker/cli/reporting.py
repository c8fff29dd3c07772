"""`archiver verify --report`: check the assets of a period, and write the report."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import typer

from worker.cli.opening import open_ledger
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, err, out, print_json, read_settings, time_of


def write_report(file: Path, since: str, until: str, *, quick: bool, as_json: bool) -> None:
    """Write FILE.json and FILE.html, and end the process with the exit code."""
    from importlib.metadata import version

    from archiver.core.health import MISSED_SWEEPS
    from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
    from archiver.ledger.models import Row
    from storage_backends.registry import open_destinations
    from worker.bootstrap import DISTRIBUTION
    from worker.cli.cmd_verify import LEDGER_UNAVAILABLE
    from worker.report import Copy, Period, Report, Reporter, lines_of, not_seen, rows_of, stored_in
    from worker.verify import EVERYTHING, STORED_STATES, stored_by, verify
    from worker.views.report import report_page
    from worker.views.text import shown

    period = Period(
        time_of(since, "--since") if since else None, time_of(until, "--until") if until else None
    )
    if period.since and period.until and period.since >= period.until:
        raise typer.BadParameter("the period is empty", param_hint="--since, --until")
    base = file.with_suffix("") if file.suffix in (".json", ".html") else file
    for path in _both(base):
        _check_writable(path)
    settings = read_settings()
    destinations = open_destinations(settings.destinations)
    now, unknown = datetime.now(UTC), []
    rows: dict[str, Row] = {}
    stored = None
    try:
        with open_ledger(settings) as ledger:
            now = ledger.now()
            rows, stored = rows_of(ledger.rows(), period), stored_by(ledger)
            if not rows and ledger.counts().seen == 0:
                unknown.append("the ledger is empty: `archiver rebuild` and `archiver sweep` fill it")
            else:
                late = MISSED_SWEEPS * settings.sweep_every
                unknown += not_seen(period, ledger.recall(SWEEP_FACT), now, late)
    except LEDGER_UNAVAILABLE as error:
        unknown.append(f"the ledger cannot be read: {error}")
    copies: dict[str, list[Copy]] = defaultdict(list)
    with progress_shown(quiet=as_json) as progress:
        progress("listing")
        found = stored_in(destinations, period, rows.values(), unknown)
        # a manifest of the same day may be of an asset before or after the period
        outside = {asset_id for asset_id in found if stored and asset_id in stored and asset_id not in rows}
        wanted = (found - outside) | {id_ for id_, row in rows.items() if row.state in STORED_STATES}
        reporter, total = Reporter(destinations, now, quick=quick), [0]
        if wanted:
            for number, checked in enumerate(
                verify(destinations, sorted(wanted), quick=quick, stored=stored, found=total.append)
            ):
                progress("checking", number, total[-1])
                if checked.asset_id != EVERYTHING:
                    copies[checked.asset_id].append(reporter.copy(checked))
    for store in destinations:
        store.close()
    names = [store.name for store in destinations]
    made = Report(period, now, version(DISTRIBUTION), names, quick, unknown, lines_of(rows, copies))
    as_page, as_data = base.with_name(base.name + ".html"), base.with_name(base.name + ".json")
    encoder = json.JSONEncoder(default=_plain, indent=1)
    _write(as_data, encoder.iterencode(made.as_json()))
    _write(as_page, report_page(made))
    if as_json:
        summary = {"ok": made.ok, "assets": len(made.lines), "problems": len(made.problems)}
        print_json(
            json.dumps({**summary, "not_complete_because": unknown, "files": [str(as_data), str(as_page)]})
        )
    else:
        number, problems = len(made.lines), len(made.problems)
        assets = "1 asset" if number == 1 else f"{number:,} assets"
        have = "1 has a problem" if problems == 1 else f"{problems:,} have a problem"
        text = f"{assets}; {have}. Written: {as_page} (for people), {as_data} (for programs)"
        out.print(shown(text, "" if made.ok else "bold red"))
        for why in unknown:
            err.print(shown(f"It is not known whether this is complete: {why}", "bold red"))
    if made.problems:
        sys.exit(ExitCode.NOT_SAVED)
    sys.exit(ExitCode.UNREACHABLE if unknown else ExitCode.OK)


def _both(base: Path) -> list[Path]:
    return [base.with_name(base.name + suffix) for suffix in (".json", ".html")]


def _check_writable(path: Path) -> None:
    """Raises BadParameter before hours of reading, rather than after them."""
    folder = path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or path.is_dir():
        raise typer.BadParameter(f"{path} cannot be written", param_hint="--report")


def _write(path: Path, pieces: Iterable[str]) -> None:
    """Write a file that is there whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
