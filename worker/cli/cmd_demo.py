"""`archiver demo`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from worker.cli.shared import ExitCode, Json, out


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep running afterwards, with Flower, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Archive one simulated asset of every type into ./archive-demo, with real workers and a real broker.

    Needs no account and no settings. Starts a simulated 100ms, an embedded Valkey, workers, beat and Flower; shows
    what is being copied; prints a table, and exits with 0 when every asset ended as expected.

    Examples:
      archiver demo
      archiver demo --keep      and look at Flower
    """
    from worker.cli import demonstration

    sys.exit(ExitCode.OK if demonstration.run(out, keep=keep, as_json=as_json) else ExitCode.NOT_SAVED)
