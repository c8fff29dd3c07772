"""Find assets that the ledger calls archived and a later manifest or end record does not: the ledger was rolled back
(restored from an older snapshot), so it forgot what was found or decided since.

Only what was written since the last reconcile that the ledger knows of is read; a ledger that was rolled back knows an
earlier one. What needs no manifest to be read, such as tombstones and missing manifests, is found by the lists alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto

import structlog

from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.deadlines import is_over
from archiver.core.judging import as_known
from archiver.core.records import end_records, keys
from archiver.core.records.commit import (
    DOUBTED,
    LACKING,
    UNREAD,
    committed,
    committed_after_all,
    damaged_settlement,
    kept_after_all,
    read_back,
)
from archiver.core.records.end_records import EndRecord
from archiver.core.records.manifest import Manifest
from archiver.core.upkeep.rebuild import Rebuilder
from archiver.core.upkeep.reopening import reopen
from archiver.core.upkeep.reports import BEGAN, RECONCILE_FACT
from archiver.hms.models import parse_time
from archiver.ledger.base import Ledger
from archiver.ledger.models import AssetState, CopyState, Row
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

_LONGEST = timedelta(days=1)
"""How long before its end a reconcile of the version before, which did not record it, can have begun."""


class Contradiction(Enum):
    """What a manifest says of an asset that the ledger calls archived."""

    NONE = auto()
    REOPENED = auto()  # 100ms still has it: it is copied again
    ENDED = auto()  # damaged, or stored with doubts
    UNREADABLE = auto()


class Contradictions:
    """One reconcile. Memory: the keys of the manifests written since the last one. Every method is idempotent."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        rebuilder: Rebuilder,
        clock: Callable[[], datetime],
    ) -> None:
        """Raises LedgerError."""
        self._ledger = ledger
        self._destinations = list(destinations)
        self._rebuilder = rebuilder
        self._clock = clock
        self._since = self._known_since()
        self._written: dict[ObjectKey, datetime] = {}

    def note(self, info: ObjectInfo) -> None:
        """Note a listed manifest, if it was written since. A store that does not tell when leaves it to the scrub."""
        if self._since is None or info.updated_at is None or info.updated_at < self._since:
            return
        self._written[info.key] = max(info.updated_at, self._written.get(info.key, info.updated_at))

    def is_suspect(self, row: Row, key: ObjectKey) -> bool:
        """Whether a manifest was written after the ledger last changed this archived asset. Each attempt writes its
        manifests first, so that is rare: a repair, a thumbnail that came late, or a ledger that was rolled back."""
        written = self._written.get(key)
        return row.state is AssetState.ARCHIVED and written is not None and written > row.changed_at

    def settle(self, row: Row) -> Contradiction:
        """Read the manifests of an archived asset, and believe what they say: marked as damaged, it is copied again
        while 100ms has it, and damaged afterwards; with doubts it is quarantined. Raises StorageError, LedgerError."""
        key = keys.manifest_key(row.asset_id, row.created_at)
        read = {store.name: self._rebuilder.read(store, key) for store in self._destinations}
        manifests = {name: manifest for name, manifest in read.items() if manifest is not None}
        if len(manifests) < len(read):
            return Contradiction.UNREADABLE
        marked = {name: manifest.damage for name, manifest in manifests.items() if manifest.damage}
        is_doubted = any(not m.trusted and not _is_set_aside(row, name, m) for name, m in manifests.items())
        if not (marked or is_doubted) or not self._is_unchanged(row):
            return Contradiction.NONE
        log.error("archived_by_the_ledger_alone", asset_id=row.asset_id, marked=marked, doubted=is_doubted)
        if marked and not is_over(row, self._clock()):
            reopen(self._ledger, row.asset_id, dict.fromkeys(marked, CopyState.DAMAGED))
            return Contradiction.REOPENED
        problems = {
            store.name: self._problems(store, key, manifests[store.name])
            for store in self._destinations
            if not _is_set_aside(row, store.name, manifests[store.name])
        }
        if any(problems.values()):
            problems = {store.name: problems.get(store.name, (DOUBTED,)) for store in self._destinations}
            self._damage(row, problems)
            return Contradiction.ENDED
        if is_doubted:
            self._ledger.record_archived(as_known(row), self._rebuilder.settlement(key, manifests))
            return Contradiction.ENDED
        return Contradiction.NONE

    def is_refuted(self, row: Row, record: EndRecord) -> bool:
        """Whether an end record of an archived asset is outdated. One that calls it damaged, or rejected since, and is
        later than what the ledger knows, may be all that tells of it, where manifests cannot be marked: every byte is
        read, and what is not whole is settled as `settle` does. Raises StorageError, LedgerError."""
        if record.state not in end_records.MAY_BE_DAMAGED or not self.is_later(record, row):
            return True
        key = keys.manifest_key(row.asset_id, row.created_at)
        problems = {store.name: self._problems_read_back(store, key) for store in self._destinations}
        if not any(problems.values()):
            return True
        if self._is_unchanged(row):
            log.error("archived_by_the_ledger_alone", asset_id=row.asset_id, recorded=record.state)
            # what could not be marked, an attempt would take for whole
            is_hidden = any(each and each[0].startswith(UNREAD) for each in problems.values())
            if is_over(row, self._clock()) or is_hidden:
                self._damage(row, problems)
            else:
                self._ledger.reopen(row.asset_id)
        return False

    def is_later(self, record: EndRecord, row: Row) -> bool:
        """Whether the record was written after the ledger last changed the asset. One from the future was dated by a
        wrong clock."""
        at = record.recorded_at
        return at is not None and row.changed_at < at <= self._clock() + CLOCK_TOLERANCE

    # -- inside --------------------------------------------------------------------------------------------
    def _known_since(self) -> datetime | None:
        fact = self._ledger.recall(RECONCILE_FACT)
        if fact is None:  # a new ledger, or a lost one: what it knows it has just read
            archived = self._ledger.counts().states.get(AssetState.ARCHIVED, 0)
            return datetime.min.replace(tzinfo=self._clock().tzinfo) if archived else None
        ended = parse_time(fact.get("at")) or self._clock()
        return (parse_time(fact.get(BEGAN)) or ended - _LONGEST) - CLOCK_TOLERANCE

    def _is_unchanged(self, row: Row) -> bool:
        now = self._ledger.get(row.asset_id)
        return now is not None and (now.state, now.changed_at) == (row.state, row.changed_at)

    def _problems(self, store: StorageBackend, key: ObjectKey, manifest: Manifest) -> Sequence[str]:
        """Read a copy that is marked once more: a person may have asked for a new one, and it may be whole."""
        if not manifest.damage:
            return ()
        proof = committed_after_all if manifest.trusted else kept_after_all
        try:
            return () if proof(store, key) else manifest.damage
        except StorageError as error:
            return (f"{UNREAD}: {error}",)

    def _problems_read_back(self, store: StorageBackend, key: ObjectKey) -> Sequence[str]:
        try:
            manifest = committed(store, key)
            if manifest is None:
                return (LACKING,)
            return () if read_back(store, key, manifest) else ("it is not what its manifest says",)
        except StorageError as error:  # also when what is damaged cannot be marked
            return (f"{UNREAD}: {error}",)

    def _damage(self, row: Row, problems: Mapping[str, Sequence[str]]) -> None:
        how = damaged_settlement(
            row.asset_id, problems, stored_bytes=row.stored_bytes, stored_objects=row.stored_objects
        )
        self._ledger.record_archived(as_known(row), how)


def _is_set_aside(row: Row, name: str, manifest: Manifest) -> bool:
    """Whether this copy with doubts was there when the asset was archived at the quorum without it."""
    return not manifest.trusted and row.copies.get(name) is CopyState.DAMAGED
