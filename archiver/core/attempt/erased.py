"""Refuse to copy an asset that was erased, or to give it another end, also when the ledger was lost."""

from __future__ import annotations

from contextlib import suppress

from archiver.core.attempt.context import Dependencies
from archiver.core.attempt.outcomes import Ended, Settled, settlement
from archiver.core.records import end_records, tombstones
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


def unless_erased(deps: Dependencies, asset_id: str, outcome: Settled) -> Settled:
    """Return `outcome`, or that of an erased asset in place of an end that would be recorded: a ledger that was rolled
    back has it open again, and 100ms may have it no more. One request for each destination, for such an end only."""
    if settlement(outcome).state not in end_records.RECORDED_STATES:
        return outcome
    erased = erased_outcome(deps, asset_id)
    if erased is None:
        return outcome
    ticket = erased.reason.partition(":")[0]
    return Ended(AssetState.ERASING, f"{ticket}: reconcile looks whether anything is left of it")
