"""`archiver scrub`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings


def scrub(
    now: Annotated[
        bool, typer.Option("--now", help="Scrub in this process, until what is due is done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the archived copies that are due again, most urgent first. The workers do so each day.

    Reads no more than ARCHIVER_SCRUB_BYTES allow for this day, and for 6 hours at most. Damaged copies are copied again
    while 100ms has them. Exit code 1 when a copy is damaged, could not be read, or is overdue, 3 when a destination
    could not be used. To check everything, whatever is due: `archiver verify`.

    Examples:
      archiver scrub --now
    """
    from dataclasses import asdict

    from worker.views.text import shown, size

    if not now:
        raise typer.BadParameter(
            "add --now to scrub in this process; the workers scrub each day by themselves"
        )
    with (
        open_services(read_settings(), own_ledger=True) as services,
        progress_shown(quiet=as_json) as progress,
    ):
        result = services.scrubber.scrub(progress)
    if result is None:
        err.print("Another scrub is already running. Nothing was done.")
        return
    if as_json:
        print_json(json.dumps(asdict(result)))
    else:
        out.print(
            f"{result.manifests:,} copies were due and checked, {size(result.read_bytes)} read: "
            f"{result.damaged:,} damaged, {result.unreadable:,} could not be read, {result.overdue:,} are overdue."
        )
        if result.damaged or result.unreadable or result.overdue:
            out.print("`archiver status` names them, and what to do.", style="bold red")
        for reason in result.stopped.values():
            out.print(shown(f"Stopped: {reason}", "bold red"))
    has_problem = result.damaged or result.unreadable or result.overdue
    if not has_problem and result.stopped:
        sys.exit(ExitCode.UNREACHABLE)
    sys.exit(ExitCode.NOT_SAVED if has_problem else ExitCode.OK)
