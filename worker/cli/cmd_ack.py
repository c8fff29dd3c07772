"""`archiver ack`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from worker.cli.deciding import decide
from worker.cli.shared import By, Json, Why


def ack(
    asset_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID", help="Asset ids, as `status` shows them; or session ids of announced_not_listed."
        ),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--all", metavar="STATE", help="All assets in this state now.", show_default=False),
    ] = None,
    why: Why = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Acknowledge failed assets: somebody has looked, and nothing more can be done about them.

    For assets that are lost, damaged, quarantined, source_failed or needs_source_access. They are still counted, and
    `archiver show` tells who acknowledged them, when and why; but `status` and the exit codes no longer report them
    until their state changes. An asset that is retried and fails again is reported again. The acknowledgement is
    stored in the bucket too. Idempotent. Exit code 1 when an asset is in none of these states.

    A recording that a webhook announced and 100ms does not list (announced_not_listed) is acknowledged by its session.

    Examples:
      archiver ack 6400c0d3e1b2a3c4d5e6f708 --why '100ms support: it cannot be restored'
      archiver ack 65a2e0d3e1b2a3c4d5e6f700 --why '100ms support: the session was never recorded'
      archiver ack --all source_failed --why 'reviewed, nothing was recorded'
    """
    from archiver.core.upkeep import not_listed
    from archiver.core.upkeep.review import acknowledge, cleaned
    from archiver.ledger.base import Assets, Ledger
    from archiver.ledger.models import ACKNOWLEDGED_STATES, AssetState, Row
    from storage_backends.base import StorageBackend

    if every is not None and every not in set(ACKNOWLEDGED_STATES):
        raise typer.BadParameter(f"one of {', '.join(sorted(ACKNOWLEDGED_STATES))}", param_hint="--all")
    if (every is None) == (not asset_ids):
        raise typer.BadParameter("give one or more IDs, or --all STATE")

    def unacknowledged(ledger: Assets) -> list[Row]:
        return [row for row in ledger.rows([AssetState(every or "")]) if not row.acknowledged]

    def record(
        ledger: Ledger, destinations: list[StorageBackend], name: str, *, by: str, why: str, now: datetime
    ) -> Row | str:
        if ledger.get(name) is None:
            by, why = cleaned(by, why)
            if not_listed.acknowledge(ledger, name, by=by, why=why, now=now):
                return f"{name}: acknowledged, what was announced and is not listed."
        return acknowledge(ledger, destinations, name, by=by, why=why, now=now)

    choose = None if every is None else unacknowledged
    decide(record, asset_ids or [], choose=choose, why=why, by=by, as_json=as_json)
