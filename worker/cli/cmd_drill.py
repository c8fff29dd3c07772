"""`archiver drill`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings


def drill(
    assets: Annotated[
        int | None,
        typer.Option(
            "--assets", min=1, max=1000, help="Copies of each destination. Default: the setting, or 3."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Restore a few archived copies as a test, the longest undrilled first: compare every byte, decode the first and
    last picture, and remove them again. The workers do so each week (ARCHIVER_DRILL_ASSETS).

    Each destination is tried alone. The scratch folder is in ARCHIVER_DRILL_DIR. Without ffmpeg on PATH the copies are
    compared and not decoded. A copy that is damaged is marked, so that it is copied again.

    Exit code 0 when every copy came back, 1 when one did not or does not play, 3 when a destination could not be used.

    Examples:
      archiver drill --assets 10
    """
    from dataclasses import asdict

    from worker.views.text import shown, size

    settings = read_settings()
    with open_services(settings) as services, progress_shown(quiet=as_json) as progress:
        report = services.driller.drill(assets or settings.drill_assets or 3, progress)
    if report is None:
        err.print("Another drill is already running. Nothing was done.")
        return
    if as_json:
        print_json(json.dumps(asdict(report)))
    elif report.ok and not report.copies:
        out.print("There is nothing to drill yet: no copy is archived.")
    else:
        copies = "1 copy" if report.copies == 1 else f"{report.copies:,} copies"
        out.print(
            f"{copies} restored, {size(report.size_bytes)} in {report.seconds:,.0f} s; "
            f"{len(report.failed):,} of them not whole, or they do not play; {report.decoded:,} decoded.",
            style="bold red" if not report.ok else "bold green",
        )
        if report.not_decoded:
            out.print(shown(f"{report.not_decoded:,} {report.undecoded_for}.", "yellow"))
        if report.passed_over:
            out.print(
                shown(
                    f"{report.passed_over:,} passed over: cold, or larger than ARCHIVER_DRILL_BYTES or the space left."
                )
            )
        for problem in (*report.failed, *report.errors):
            out.print(shown(f"  {problem}", "red"))
    if report.failed or not (report.tried or report.errors):
        sys.exit(ExitCode.NOT_SAVED)
    sys.exit(ExitCode.UNREACHABLE if report.errors else ExitCode.OK)
