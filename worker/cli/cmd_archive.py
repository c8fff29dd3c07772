"""`archiver archive`."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from archiver.ledger.models import SETTLED_STATES
from worker.cli.copying import build_run, cancelled_by_signal, exit_code, status_shown
from worker.cli.opening import open_services
from worker.cli.shared import AssetIds, Json, err, out, print_json, read_settings, require_credentials
from worker.logs.escaping import escaped

if TYPE_CHECKING:
    from archiver.core.records.tombstones import Tombstone
    from worker.services import AppServices


def archive(
    asset_ids: AssetIds,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Copy assets again that are archived already, such as those that `verify` found damaged.",
        ),
    ] = False,
    un_erase: Annotated[
        bool, typer.Option("--un-erase", help="Delete the tombstones of assets that were erased or expired.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Archive these assets now, in this process, whatever their state.

    A quarantined, rejected or lost asset is restarted. One that is archived already is compared with its manifest by
    names and sizes, and left alone when they agree; --again copies it again while 100ms still has it.
    One that was erased, or has expired, is refused without --un-erase.

    Examples:
      archiver archive 6400c0d3e1b2a3c4d5e6f708
      archiver archive --again 6400c0d3e1b2a3c4d5e6f708
    """
    from archiver.core.upkeep.retrying import mark_what_is_damaged
    from archiver.ledger.models import AssetState
    from worker.views.rows import row_json, rows_view
    from worker.views.text import shown

    settings = require_credentials(read_settings())
    with (
        cancelled_by_signal() as cancelled,
        open_services(settings, stop_requested=cancelled.is_set) as services,
    ):
        erased = _erased(services, asset_ids, un_erase=un_erase)
        asset_ids = [asset_id for asset_id in asset_ids if asset_id not in erased]
        for asset_id in asset_ids:
            if again:
                _copy_again(services, asset_id)
            row = services.ledger.get(asset_id)
            if row is not None and not again:
                mark_what_is_damaged(services.destinations, row)
            is_kept = not again and row is not None and row.state is AssetState.QUARANTINED
            services.ledger.reopen(asset_id, keep_stored=is_kept)
        with status_shown(services, quiet=as_json):
            build_run(settings, services, cancelled, 0).run(asset_ids)
        rows = [(asset_id, services.ledger.get(asset_id)) for asset_id in asset_ids]
        if as_json:
            print_json(json.dumps([row_json(row) if row else {"asset_id": id_} for id_, row in rows]))
        else:
            if known := tuple(row for _, row in rows if row):
                out.print(rows_view("", known, services.ledger.now()))
            for asset_id in (id_ for id_, row in rows if row is None):
                err.print(shown(f"{asset_id}: 100ms does not know it.", "red"))
        for tombstone in erased.values():
            err.print(shown(_refusal(tombstone), "red"))
        all_safe = not erased and all(row and row.state in SETTLED_STATES for _, row in rows)
        code = exit_code(services, all_safe=all_safe, cancelled=cancelled.is_set())
    sys.exit(code)


def _erased(services: AppServices, asset_ids: Sequence[str], *, un_erase: bool) -> dict[str, Tombstone]:
    """Return the tombstones of assets that stay erased."""
    from archiver.core.records import tombstones
    from archiver.core.upkeep.erasing import tombstone_in

    found: dict[str, Tombstone] = {}
    for asset_id in asset_ids:
        row = services.ledger.get(asset_id)
        tombstone = tombstones.find(services.destinations, asset_id) or (tombstone_in(row) if row else None)
        if tombstone is None:
            continue
        if un_erase:
            by = f"{getpass.getuser()}@{socket.gethostname()}"
            services.eraser.un_erase(asset_id, by=by, why=tombstone.ticket)
        else:
            found[asset_id] = tombstone
    return found


def _refusal(tombstone: Tombstone) -> str:
    what = "has expired" if tombstone.state == "expired" else "was erased"
    if not tombstone.is_done:
        what = f"{what} (not finished yet: `archiver reconcile`)"
    return (
        f"{tombstone.asset_id} {what}, by {tombstone.ticket or 'an unknown ticket'} at {tombstone.at:%Y-%m-%d %H:%M} "
        "UTC; its tombstone forbids to archive it. If it is wanted after all: --un-erase."
    )


def _copy_again(services: AppServices, asset_id: str) -> None:
    """Mark the asset's manifests as damaged. Not when 100ms has deleted it: a damaged copy is better than none."""
    from archiver.core.errors import ReviewRefused
    from archiver.core.upkeep.retrying import copy_again

    row = services.ledger.get(asset_id)
    if row is None:
        return
    try:
        copy_again(services.ledger, services.destinations, row, services.ledger.now())
    except ReviewRefused as error:
        err.print(Text(escaped(str(error)), style="yellow"))
