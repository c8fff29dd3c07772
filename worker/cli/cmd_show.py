"""`archiver show`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from archiver.core.errors import ManifestError
from storage_backends.errors import StorageError
from worker.cli.opening import open_ledger
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings


def show(asset_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """Everything that is known of one asset: its state and why, and its manifest at each destination.

    Examples:
      archiver show 6400c0d3e1b2a3c4d5e6f708
    """
    from archiver.core.records import keys
    from archiver.core.records.manifest import read_manifest
    from storage_backends.registry import open_destinations
    from worker.views.rows import row_json
    from worker.views.show import asset_view
    from worker.views.text import shown

    settings = read_settings()
    with open_ledger(settings) as ledger, ExitStack() as stack:
        row = ledger.get(asset_id)
        manifests: dict[str, dict[str, Any] | str | None] = {}
        if row is not None:
            for store in open_destinations(settings.destinations):
                stack.callback(store.close)
                try:
                    manifest = read_manifest(store, keys.manifest_key(asset_id, row.created_at))
                    manifests[store.name] = json.loads(manifest.to_bytes()) if manifest else None
                except (ManifestError, StorageError) as error:
                    manifests[store.name] = str(error)
    if as_json:
        print_json(json.dumps({"row": row_json(row) if row else None, "manifests": manifests}))
    elif row is None:
        err.print(shown(f"{asset_id} is not in the ledger. `archiver archive {asset_id}` asks 100ms for it."))
    else:
        out.print(asset_view(row, manifests))
    sys.exit(ExitCode.OK if row is not None else ExitCode.NOT_SAVED)
