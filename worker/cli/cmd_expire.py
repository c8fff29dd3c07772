"""`archiver expire`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer

from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings

_SHOWN = 20


def expire(
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Accept terms that are shorter than those that were accepted before."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what is due, and delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete what has been kept for its term (ARCHIVER_KEEP_DAYS), today's share of it. The workers do so each hour.

    At most a hundredth of the archive in a day. A first or shorter term deletes nothing before --yes, and is reported
    until then: this lists what it would delete. Nothing is deleted while the clocks of the ledger, 100ms and the
    destinations disagree. Exit code 1 then, and when something is left of an asset.

    Examples:
      archiver expire --dry-run
      archiver expire --yes   after ARCHIVER_KEEP_DAYS was set, or made shorter
    """
    from worker.views.text import shown

    settings = read_settings()
    if settings.keep_days is None and not as_json:
        err.print("ARCHIVER_KEEP_DAYS is not set: everything is kept for ever.", style="yellow")
    with open_services(settings, own_ledger=True) as services:
        if dry_run:
            number = 0
            for row in services.expirer.due():
                number += 1
                if as_json:
                    print_json(json.dumps({"asset_id": row.asset_id, "type": row.type}))
                elif number <= _SHOWN:
                    out.print(shown(f"{row.asset_id}  {row.type}  {row.created_at:%Y-%m-%d %H:%M}"))
            if not as_json:
                out.print(f"The term of {number:,} assets is over. Nothing was deleted.")
            sys.exit(ExitCode.OK)
        with progress_shown(quiet=as_json) as on_progress:
            result = services.expirer.run(confirmed=yes, on_progress=on_progress)
        if result is None:
            err.print("Another expiry is already running. Nothing was done.")
            return
        if as_json:
            print_json(json.dumps(asdict(result)))
        elif result.withheld:
            err.print(shown(f"Shorter than what was accepted: {'; '.join(result.withheld)}.", "bold red"))
            due = list(islice(services.expirer.due(), _SHOWN + 1))
            for row in due[:_SHOWN]:
                err.print(shown(f"{row.asset_id}  {row.type}  {row.created_at:%Y-%m-%d %H:%M}"))
            more = ", and more" if len(due) > _SHOWN else ""
            err.print(
                f"{min(len(due), _SHOWN)} assets{more} would expire. Nothing was deleted; `archiver expire --yes` "
                "accepts the terms."
            )
        elif result.held:
            err.print(shown(f"Nothing was deleted: {result.held}.", "bold red"))
        else:
            rest = f" {result.left:,} more are due, and wait for their day." if result.left else ""
            out.print(f"{result.expired:,} assets expired, {result.unfinished:,} are not finished yet.{rest}")
    sys.exit(ExitCode.NOT_SAVED if result.withheld or result.held or result.unfinished else ExitCode.OK)
