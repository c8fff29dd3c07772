"""Records in the ledger which objects are stored, so that the next attempt need not copy them again.

A failed write costs a second copy of these objects at the worst.
"""

from __future__ import annotations

import time

import structlog

from archiver.core.attempt.remaining_stores import RemainingStores
from archiver.core.destinations.guarded import is_still_there
from archiver.ledger.base import CopyJournal
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.models import Lease, StoredObject

log = structlog.get_logger(__name__)

JOURNAL_EVERY = 24  # objects recorded in the ledger at once; fewer of them
JOURNAL_BYTES = 16 * 2**20  # when they are so large, or
JOURNAL_AFTER_SECONDS = 5.0  # when they arrived this long ago: what a worker that dies had copied in vain
SMALL_BYTES = 256 * 1024

_TAKEN_BACK = -1  # the size of no object: a record with it is as good as none


class StoredJournal:
    def __init__(self, ledger: CopyJournal, lease: Lease, version: str, stores: RemainingStores) -> None:
        self._ledger = ledger
        self._lease = lease
        self._version = version
        self._stores = stores
        self._unrecorded: list[StoredObject] = []
        self._unrecorded_bytes = 0
        self._recorded_at = time.monotonic()
        self._early: dict[str, StoredObject] = {}  # added before it was confirmed; by path

    def add(self, stored: StoredObject) -> None:
        if self._early.pop(stored.path, None) != stored:
            self._note(stored)
        self.record_if_due()

    def add_early(self, stored: StoredObject) -> None:
        """Add an object that is not confirmed yet: `add` or `take_back` follows."""
        self._early[stored.path] = stored
        self._note(stored)

    def take_back(self, path: str) -> None:
        """Undo `add_early`, in the ledger too."""
        if self._early.pop(path, None) is not None:
            self._unrecorded = [one for one in self._unrecorded if one.path != path]
            self._note(StoredObject(path, size_bytes=_TAKEN_BACK, crc32c=0))
            self.record()

    def record_if_due(self) -> None:
        many = len(self._unrecorded) >= JOURNAL_EVERY or self._unrecorded_bytes >= JOURNAL_BYTES
        if many or time.monotonic() - self._recorded_at >= JOURNAL_AFTER_SECONDS:
            self.record()

    def record(self) -> None:
        self._recorded_at = time.monotonic()
        if not self._unrecorded:
            return
        for store in self._stores.alive:
            confirmed = self._unrecorded
            if not is_still_there(store):  # what was written lies below the mount point
                confirmed = [one for one in confirmed if one.size_bytes == _TAKEN_BACK]
            if not confirmed:
                continue
            try:
                self._ledger.add_stored(self._lease, store.name, self._version, confirmed)
            except LedgerUnavailable as error:
                log.warning("stored_objects_not_recorded", asset_id=self._lease.asset_id, error=str(error))
        self._unrecorded, self._unrecorded_bytes = [], 0

    def leave_if_small(self) -> None:
        """Do not record the rest if it is small. A copy that ended well is committed next; to copy one or two small
        files again, should that fail, costs less than to record each."""
        if self._unrecorded_bytes <= SMALL_BYTES:
            self._unrecorded, self._unrecorded_bytes = [], 0

    def _note(self, stored: StoredObject) -> None:
        self._unrecorded.append(stored)
        self._unrecorded_bytes += stored.size_bytes
