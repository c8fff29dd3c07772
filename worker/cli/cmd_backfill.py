"""`archiver backfill`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import Json, err, out, print_json, read_settings, require_credentials, time_of


def backfill(
    room: Annotated[str, typer.Option("--room", help="The assets of this room id.")] = "",
    session: Annotated[str, typer.Option("--session", help="The assets of this session id.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Created at this time or later.")
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Created before this time.")] = "",
    as_json: Json = False,
) -> None:
    """Enter the assets of one room or session now, and make them due: what a filter or an outage has hidden.

    Change the filter first (ARCHIVER_ROOMS, ARCHIVER_TYPES), for the workers too. The workers take next what
    was entered; without workers: `archiver run --once`. TIME is RFC 3339, or a date (UTC). Idempotent.

    Examples:
      archiver backfill --room 6501aa01
      archiver backfill --room 6501aa01 --since 2026-03-01 --until 2026-03-08
    """
    from archiver.core.upkeep.backfill import backfill as enter
    from archiver.ledger.clock import LedgerClock
    from archiver.ledger.models import OPEN_STATES
    from worker.bootstrap import build_scope
    from worker.views.text import shown

    if not room and not session:
        raise typer.BadParameter("give --room ID or --session ID; `archiver sweep` lists everything")
    first = time_of(since, "--since") if since else None
    last = time_of(until, "--until") if until else None
    if first is not None and last is not None and first >= last:
        raise typer.BadParameter("is not before --until", param_hint="--since")
    settings = require_credentials(read_settings())
    with open_services(settings) as services, progress_shown(quiet=as_json) as progress:
        result = enter(
            api=services.api,
            ledger=services.ledger,
            scope=build_scope(settings),
            clock=LedgerClock(services.ledger),
            room_id=room or None,
            session_id=session or None,
            since=first,
            until=last,
            on_progress=progress,
        )
    states = {str(state): number for state, number in sorted(result.states.items())}
    if as_json:
        reasons = dict(result.reasons)
        print_json(
            json.dumps({"found": result.found, "new": result.new, "states": states, "reasons": reasons})
        )
        return
    out.print(
        f"{result.found:,} assets found, {result.new:,} new"
        + "".join(f"; {number:,} {state}" for state, number in states.items())
        + "."
    )
    if any(result.states.get(state) for state in OPEN_STATES):
        out.print("What is not saved is due now: the workers take it next, or `archiver run --once`.")
    for reason, number in sorted(result.reasons.items()):
        err.print(shown(f"{number:,} skipped: {reason}. Change the setting, then backfill again.", "yellow"))
