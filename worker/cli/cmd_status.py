"""`archiver status`."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer
from rich.live import Live

from worker.cli.interrupts import lasting_interrupt
from worker.cli.opening import open_ledger
from worker.cli.shared import ExitCode, Json, out, print_json, read_settings


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh each second until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Is everything saved? What is at risk, and by when? What is being copied?

    Exit code 0 when everything is known and nothing needs a person, else 1; each problem is printed.

    Examples:
      archiver status
      archiver status --watch
      archiver status --json | jq .needs_attention
    """
    from archiver.core.health import assess
    from worker.embedded.flower import flower_url
    from worker.ledger import build_watcher
    from worker.views.status import summary_json, summary_view

    settings = read_settings()
    with open_ledger(settings) as ledger:
        watcher = build_watcher(settings, ledger)
        summary = watcher.summary()
        if as_json:
            print_json(json.dumps({**summary_json(summary), "flower": flower_url(settings)}))
        elif not watch:
            out.print(summary_view(summary))
        else:
            view = summary_view(summary)
            with (
                lasting_interrupt() as interrupted,
                Live(view, console=out, auto_refresh=False, screen=out.is_terminal) as live,
            ):
                while not interrupted():
                    time.sleep(1)
                    live.update(summary_view(watcher.summary()), refresh=True)
            sys.exit(ExitCode.INTERRUPTED)
    sys.exit(assess(summary).exit_code)
