"""Refuse to copy an asset that was erased, also when the ledger was lost."""

from __future__ import annotations

from contextlib import suppress

from archiver.core.attempt.context import Dependencies
from archiver.core.attempt.outcomes import Ended
from archiver.core.records import tombstones
from archiver.ledger.models import AssetState
from storage_backends.errors import StorageError


def erased_outcome(deps: Dependencies, asset_id: str) -> Ended | None:
    """Return the outcome for an asset whose tombstone any destination holds; None without one. A destination that does
    not answer is asked again before a manifest is written there. One request for each destination."""
    for store in deps.destinations:
        with suppress(StorageError):
            found = tombstones.read(store, asset_id)
            if found is not None:
                is_done = found.is_done
                return Ended(
                    found.state if is_done else AssetState.ERASING,
                    found.ticket if is_done else f"{found.ticket}: reconcile finishes what was begun",
                )
    return None
