"""`archiver show`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from archiver.core.errors import ManifestError
from storage_backends.errors import StorageError
from worker.cli.opening import open_ledger
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from archiver.ledger.base import Ledger
    from archiver.ledger.models import Row
    from storage_backends.base import StorageBackend
    from storage_backends.destination_url import DestinationUrl
    from worker.settings import Settings
    from worker.views.show import Copy


def show(
    asset_id: Annotated[str, typer.Argument(metavar="[ID]", show_default=False)] = "",
    session: Annotated[str, typer.Option("--session", help="All assets of this session id.")] = "",
    as_json: Json = False,
) -> None:
    """Everything that is known of an asset: its state and why, where it is, and who decided what about it.

    With --session: of each asset of a session; --json then prints one object on each line. Locations can be copied:
    s3://..., gs://..., or a path. Exit code 1 when the ledger knows no such asset.

    Examples:
      archiver show 6400c0d3e1b2a3c4d5e6f708
      archiver show --session 65a2e0d3e1b2a3c4d5e6f700
    """
    from storage_backends.destination_url import parse_destination
    from storage_backends.registry import open_destinations
    from worker.views.show import asset_json, asset_view, session_view
    from worker.views.text import shown

    if bool(asset_id) == bool(session):
        raise typer.BadParameter("Missing argument: give an ID, or --session ID")
    settings = read_settings()
    with open_ledger(settings) as ledger, ExitStack() as stack:
        if session:
            rows = [row for row in ledger.rows() if row.session_id == session]
        else:
            rows = [row for row in [ledger.get(asset_id)] if row is not None]
        now = ledger.now()
        stores = open_destinations(settings.destinations) if rows else []
        for store in stores:
            stack.callback(store.close)
        places = [parse_destination(url) for url in settings.destinations]
        why_not = _identities(settings, ledger, stores)
        for row in rows:
            copies = _copies(row, stores, places, why_not)
            if as_json:
                print_json(json.dumps(asset_json(row, copies)))
            else:
                out.print((session_view if session else asset_view)(row, copies, now))
    if not rows and as_json and not session:
        print_json(json.dumps({"row": None, "manifests": {}, "locations": {}, "history": []}))
    elif not rows and session:
        err.print(shown(f"The ledger knows no asset of session {session}. `archiver sweep` asks 100ms."))
    elif not rows:
        err.print(shown(f"{asset_id} is not in the ledger. `archiver archive {asset_id}` asks 100ms for it."))
    sys.exit(ExitCode.OK if rows else ExitCode.NOT_SAVED)


def _identities(
    settings: Settings, ledger: Ledger, stores: Sequence[StorageBackend]
) -> Callable[[str], str | None]:
    """Return what says why a destination is not the one that the ledger knows; None: it is, or that is not known. Each
    is asked once, and only where something is missing."""
    from archiver.ledger.clock import LedgerClock
    from worker.doctor.check_result import Verdict
    from worker.doctor.identities import check_identity
    from worker.identities import build_identities

    identities = build_identities(settings, ledger, stores, LedgerClock(ledger))

    @cache
    def why_not(name: str) -> str | None:
        found = check_identity(name, identities)
        is_wrong = found is not None and found.verdict is Verdict.PROBLEM
        return f"it {found.detail}. {found.remedy}" if found is not None and is_wrong else None

    return why_not


def _copies(
    row: Row,
    stores: Sequence[StorageBackend],
    places: Sequence[DestinationUrl],
    why_not: Callable[[str], str | None],
) -> list[Copy]:
    """The asset's manifest at each destination, or why it cannot be read."""
    from archiver.core.records import keys
    from archiver.core.records.manifest import read_manifest
    from worker.views.show import Copy

    key = keys.manifest_key(row.asset_id, row.created_at)
    copies = []
    for store, place in zip(stores, places, strict=True):
        try:
            manifest = read_manifest(store, key)
            found = json.loads(manifest.to_bytes()) if manifest else why_not(store.name)
        except (ManifestError, StorageError) as error:
            found = str(error)
        folder = place.location(found["folder"]) if isinstance(found, dict) else None
        copies.append(Copy(store.name, found, place.location(key), folder))
    return copies
