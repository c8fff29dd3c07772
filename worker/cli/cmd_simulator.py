"""`archiver simulator`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def simulator(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Run the simulated 100ms alone: API, storage with expiring URLs, CDN, sample recordings, named faults."""
    from archiver.simulator.__main__ import main as simulate

    sys.exit(simulate(arguments or [], program="archiver simulator"))
