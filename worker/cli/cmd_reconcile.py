"""`archiver reconcile`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings
from worker.logs.escaping import escaped


def reconcile(
    yes: Annotated[
        bool, typer.Option("--yes", help="Believe that what is missing is gone, however much it is.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the ledger with the destinations and repair the differences. The workers do so each hour.

    When more than 20 assets and 2 % have lost a copy at once, it copies again what can be copied, and changes nothing
    else until --yes. Exit code 1 when it stopped for that reason, or when a copy was removed that 100ms no longer has.

    Examples:
      archiver reconcile
      archiver reconcile --yes   after a mass deletion that you know of
    """
    from dataclasses import asdict

    with (
        open_services(read_settings(), own_ledger=True) as services,
        progress_shown(quiet=as_json) as progress,
    ):
        services.missed_webhooks.look()
        result = services.reconciler.reconcile(confirmed=yes, on_progress=progress)
        services.measure_clocks()
        services.session_keeper.keep()
    if result is None:
        err.print("Another reconcile is already running. Nothing was done.")
        return
    if as_json:
        print_json(json.dumps({**asdict(result), "stopped": result.stopped}))
    else:
        out.print(
            f"{result.manifests:,} assets have a manifest at every destination. {result.entered + result.found:,} "
            f"entered, {result.reopened:,} queued again, {result.missing_copies:,} lack a copy that is not "
            "copied from 100ms."
        )
        if result.contradicted:
            out.print(
                f"{result.contradicted:,} were archived by the ledger alone: a later manifest says otherwise, so the "
                "ledger is of an earlier time."
            )
        if result.stopped:
            out.print(
                f"Stopped: {result.would_change:,} more would be marked as damaged or gone, because their manifests "
                f"are missing at {escaped(', '.join(result.would_change_at))}. Restore them from the bucket's versions "
                "or a backup; if the copies are really gone, run `archiver reconcile --yes`.",
                style="bold red",
            )
    has_problem = result.stopped or result.damaged or result.unreadable
    sys.exit(ExitCode.NOT_SAVED if has_problem else ExitCode.OK)
