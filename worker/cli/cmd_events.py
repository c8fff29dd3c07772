"""`archiver events`."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.opening import open_ledger
from worker.cli.shared import ExitCode, Json, out, print_json, read_settings, time_of
from worker.errors import SettingsError

if TYPE_CHECKING:
    from archiver.ledger.base import Ledger

_BATCH = 1000


class Action(StrEnum):
    REPLAY = "replay"


def events(
    action: Annotated[
        Action | None, typer.Argument(metavar="[replay]", help="`replay`: send events again.")
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="With `replay`: of assets that changed since then.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Show how many events wait for the receiver of ARCHIVER_EVENT_URL; with `replay`, put an event of every asset
    that became archived, quarantined, lost, damaged, erased or expired since a time into the outbox.

    The receiver drops what it has by the id of the event. TIME is RFC 3339, or a date (UTC). Exit code 1 when events
    are late, or were not kept.

    Examples:
      archiver events
      archiver events replay --since 2026-03-01
    """
    settings = read_settings()
    if action is Action.REPLAY and settings.event_url is None:
        raise SettingsError("ARCHIVER_EVENT_URL is not set: there is nobody to send events to.")
    with open_ledger(settings) as ledger:
        if action is Action.REPLAY:
            _replay(ledger, time_of(since, "--since"), as_json=as_json)
        else:
            _show(ledger, as_json=as_json)


def _replay(ledger: Ledger, since: datetime, *, as_json: bool) -> None:
    from archiver.ledger.models import EVENT_STATES

    found = [row.asset_id for row in ledger.rows(sorted(EVENT_STATES)) if row.changed_at >= since]
    kept = sum(ledger.replay(found[first : first + _BATCH]) for first in range(0, len(found), _BATCH))
    if kept == len(found):
        ledger.forget_dropped()
    if as_json:
        print_json(json.dumps({"found": len(found), "kept": kept}))
    else:
        out.print(f"{kept:,} of {len(found):,} events are in the outbox; `archiver serve` sends them.")
    sys.exit(ExitCode.OK if kept == len(found) else ExitCode.NOT_SAVED)


def _show(ledger: Ledger, *, as_json: bool) -> None:
    from archiver.core.events import FACT

    size, fact = ledger.outbox_size(), ledger.recall(FACT) or {}
    if as_json:
        print_json(json.dumps({"waiting": size.waiting, "dropped": size.dropped, **fact}))
    else:
        out.print(f"{size.waiting:,} events wait.")
        if fact:
            out.print(f"Not taken since {fact.get('failing_since')}: {fact.get('reason')}")
        if size.dropped:
            out.print(f"{size.dropped:,} events were not kept: `archiver events replay --since TIME`.")
    sys.exit(ExitCode.NOT_SAVED if fact or size.dropped else ExitCode.OK)
