"""Remember which assets a reconcile has read in full in vain, where a store lets nobody note the result.

A damaged copy that cannot be marked, or one that is whole beside a record of its damage that cannot be deleted: only
reading tells. Once a day is enough, since `archiver verify ID` tells at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from archiver.hms.models import parse_time
from archiver.ledger.base import Facts
from archiver.ledger.models import Row

FACT = "reconcile_reads"
AGAIN_AFTER = timedelta(days=1)
REMEMBERED = 2000
"""Assets: about 150 kB. Those that were read before them are read by each reconcile."""


class FullReads:
    """For the reconcile that has the lock; its threads share it."""

    def __init__(self, ledger: Facts, now: datetime) -> None:
        """Raises LedgerError."""
        self._ledger = ledger
        self._now = now
        saved = (ledger.recall(FACT) or {}).get("assets")
        times = saved.items() if isinstance(saved, Mapping) else ()
        self._read = {str(asset_id): at for asset_id, text in times if (at := parse_time(text)) is not None}
        self._is_changed = False

    def knows(self, row: Row) -> bool:
        """Whether it was read within a day, and nothing was recorded of it since."""
        at = self._read.get(row.asset_id)
        return at is not None and row.changed_at <= at and timedelta(0) <= self._now - at < AGAIN_AFTER

    def note(self, asset_id: str) -> None:
        self._read.pop(asset_id, None)
        self._read[asset_id] = self._now
        self._is_changed = True

    def save(self) -> None:
        """Raises LedgerError."""
        if self._is_changed:
            latest = list(self._read.items())[-REMEMBERED:]
            self._ledger.remember(FACT, {"assets": {asset_id: at.isoformat() for asset_id, at in latest}})
            self._is_changed = False
