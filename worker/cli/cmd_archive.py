"""`archiver archive`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from archiver.ledger.models import SETTLED_STATES
from worker.cli.copying import build_run, cancelled_by_signal, exit_code, status_shown
from worker.cli.opening import open_services
from worker.cli.shared import AssetIds, Json, err, out, print_json, read_settings, require_credentials
from worker.logs.escaping import escaped

if TYPE_CHECKING:
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
    as_json: Json = False,
) -> None:
    """Archive these assets now, in this process, whatever their state.

    A quarantined, rejected or lost asset is restarted. One that is archived already is compared with its manifest by
    names and sizes, and left alone when they agree; --again copies it again while 100ms still has it.

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
        all_safe = all(row and row.state in SETTLED_STATES for _, row in rows)
        code = exit_code(services, all_safe=all_safe, cancelled=cancelled.is_set())
    sys.exit(code)


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
