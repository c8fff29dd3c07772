"""`archiver rebuild`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings


def rebuild(
    as_json: Json = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="As of `reconcile`: believe that what is missing is gone.")
    ] = False,
) -> None:
    """Make the ledger from the destinations alone, after Redis was lost: no request goes to 100ms.

    Enters every asset that has a manifest or an end record. What the ledger knows already stays as it is, so it may be
    interrupted, run again, and run while workers archive. A sweep then enters what 100ms still has and nobody saved.

    Exit code 1 when something is damaged, or a manifest cannot be understood; 3 when a destination could not be listed
    in full, and the rest has to wait for it.

    Examples:
      archiver rebuild
    """
    from dataclasses import asdict

    from archiver.ledger.models import AssetState

    with (
        open_services(read_settings(), own_ledger=True) as services,
        progress_shown(quiet=as_json) as progress,
    ):
        before = services.ledger.counts()
        result = services.reconciler.reconcile(confirmed=yes, on_progress=progress)
        after = services.ledger.counts()
    if result is None:
        err.print("A reconcile or another rebuild is running, which does the same. Nothing was done.")
        return
    entered = {
        state.value: number
        for state in AssetState
        if (number := after.states.get(state, 0) - before.states.get(state, 0)) > 0
    }
    if as_json:
        print_json(
            json.dumps({**asdict(result), "before": before.seen, "after": after.seen, "entered_as": entered})
        )
    else:
        out.print(
            f"{result.manifests:,} assets have a manifest at every destination. The ledger knew {before.seen:,} assets "
            f"and knows {after.seen:,} now. Entered: "
            f"{', '.join(f'{number:,} {state}' for state, number in entered.items()) or 'none'}."
        )
        if result.unreadable:
            out.print(
                f"{result.unreadable:,} manifests cannot be understood; the log names them.", style="bold red"
            )
        if result.stopped:
            out.print(
                f"{result.would_change:,} assets lack a copy; nothing was changed for them: `archiver reconcile` says "
                "more.",
                style="bold red",
            )
        out.print("Next: `archiver sweep`, then `archiver status`.")
    has_problem = result.stopped or result.damaged or result.unreadable or entered.get(AssetState.DAMAGED)
    sys.exit(ExitCode.NOT_SAVED if has_problem else ExitCode.OK)
