"""Make an asset due again, and record what was found of its copies."""

from __future__ import annotations

from collections.abc import Mapping

from archiver.ledger.base import Schedule
from archiver.ledger.models import AssetState, CopyState


def reopen(
    ledger: Schedule, asset_id: str, found: Mapping[str, CopyState], *, keep_stored: bool = False
) -> None:
    """Reopen an asset (as `Schedule.reopen`), and then note which copies, by destination, are missing or damaged. In
    that order: an asset that is archived without a copy counts as archived at the quorum, and a process may be killed
    in between. The next attempt finds out what was not noted. Idempotent. Raises LedgerError."""
    row = ledger.reopen(asset_id, keep_stored=keep_stored)
    if row is not None and row.state is AssetState.DISCOVERED and row.copies:
        ledger.note_copies(row, {**row.copies, **found})
