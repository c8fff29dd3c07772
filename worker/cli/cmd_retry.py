"""`archiver retry`."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from worker.cli.deciding import decide
from worker.cli.shared import By, Json, Why


def retry(
    asset_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Asset ids, as `status` shows them.")
    ] = None,
    state: Annotated[
        str, typer.Option("--state", help="All assets in this state, such as lost.", show_default=False)
    ] = "",
    room: Annotated[str, typer.Option("--room", help="With --state: only of this room id.")] = "",
    session: Annotated[str, typer.Option("--session", help="With --state: only of this session id.")] = "",
    asset_type: Annotated[
        str, typer.Option("--type", help="With --state: only of this type, such as room-composite.")
    ] = "",
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="With --state: only with TEXT in the reason.")
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Also copy archived assets again, while 100ms has them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, however many there are.")] = False,
    why: Why = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Make assets due now that wait, failed, or were rejected or skipped. The workers archive them.

    Counts of attempts start again. What is due or being copied already stays as it is. `archiver show ID` tells who
    retried it, when and why. Idempotent. Exit code 1 when an asset is archived (see --again), or left out by a filter.

    Examples:
      archiver retry 6400c0d3e1b2a3c4d5e6f708 --why 'the bucket has space again'
      archiver retry --state waiting --reason AccessDenied
      archiver retry --state lost --room 6501aa01 --yes
    """
    from archiver.core.upkeep import retrying
    from archiver.ledger.base import Assets
    from archiver.ledger.models import AssetState, Row

    if bool(state) == bool(asset_ids):
        raise typer.BadParameter("give one or more IDs, or --state STATE")
    if asset_ids and (room or session or asset_type or reason):
        raise typer.BadParameter("--room, --session, --type and --reason belong to --state")
    known = sorted({*retrying.RETRIED_STATES, *([AssetState.ARCHIVED] if again else [])})
    if state and state not in known:
        hint = ", or archived with --again" if state == AssetState.ARCHIVED else ""
        raise typer.BadParameter(f"one of {', '.join(known)}{hint}", param_hint="--state")
    if state and not yes and not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here: add --yes")

    def chosen(ledger: Assets) -> list[Row]:
        return [
            row
            for row in ledger.rows([AssetState(state)])
            if room in ("", row.room_id)
            and session in ("", row.session_id)
            and asset_type in ("", row.type)
            and reason in (row.reason or "")
        ]

    decide(
        partial(retrying.retry, again=again),
        asset_ids or [],
        choose=chosen if state else None,
        question="" if yes else "Retry",
        why=why,
        by=by,
        as_json=as_json,
    )
