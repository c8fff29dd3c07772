"""Send events again that a lost ledger may have held, by what the destinations know of deliveries.

At least once: an event that was delivered within MARGIN before the last record may come again. Of assets that were
archived before events were wanted none is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import structlog

from archiver.core.errors import ManifestError
from archiver.core.records import delivery_records, keys
from archiver.core.records.delivery_records import MAX_WAITING, DeliveryRecord
from archiver.core.records.manifest import read_manifest
from archiver.hms.models import parse_time
from archiver.ledger.base import Ledger
from archiver.ledger.models import EVENT_STATES, REMOVED_STATES, AssetState, Row
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend

log = structlog.get_logger(__name__)

FACT = "events_recorded"
"""In the ledger whose outbox the record describes: when it is missing, the ledger is new or was lost."""
MARGIN = timedelta(hours=2)
"""By how much the outcome of an attempt may reach the ledger after its manifest was written, and clocks may differ."""
WANTED_FOR = timedelta(days=7)
"""A record older than this is of events that nobody wants any more."""
_BATCH = 1000


class Undelivered:
    """`wanted`: somebody is to be sent events."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        clock: Callable[[], datetime],
        wanted: bool,
    ) -> None:
        self._ledger = ledger
        self._destinations = destinations
        self._clock = clock
        self._wanted = wanted

    def look(self) -> Resending | None:
        """Return what chooses the events to send again; None when the ledger was not lost. Raises StorageError,
        LedgerError."""
        if self._ledger.recall(FACT) is not None:
            return None
        record = delivery_records.read_newest(self._destinations)
        if record is not None and self._clock() - record.at > WANTED_FOR:
            record = None
        return Resending(self._ledger, self._destinations, record)

    def is_unrecorded(self) -> bool:
        """Whether nothing was recorded yet although events are wanted. Raises LedgerError."""
        if not self._wanted:
            return False
        fact = self._ledger.recall(FACT)
        return fact is not None and parse_time(fact.get("until")) is None

    def record(self) -> None:
        """Record up to when events were delivered, once `Resending.end` has run on this ledger. Idempotent. Raises
        StorageError, LedgerError."""
        if not self._wanted:
            return
        now = self._clock()  # before the outbox is read: what comes later is later
        size = self._ledger.outbox_size()
        events = self._ledger.events(min(size.waiting + 1, MAX_WAITING + 1))
        fact = self._ledger.recall(FACT)
        if fact is None:  # the ledger was lost since: its empty outbox says nothing
            return
        since = parse_time(fact.get("since")) or now
        until = parse_time(fact.get("until")) or since
        waiting = tuple((event.row.asset_id, event.row.state.value) for event in events)
        if size.dropped or len(events) > MAX_WAITING:  # too many to name, or not all are in the outbox
            oldest = min((event.row.changed_at for event in events), default=until)
            until = until if size.dropped else max(until, min(oldest, now))
            before = delivery_records.read_newest(self._destinations)
            waiting = before.waiting if before is not None else ()
        else:
            until = max(until, now)
        delivery_records.write(self._destinations, DeliveryRecord(now, since, until, waiting))
        self._ledger.remember(FACT, {"since": since.isoformat(), "until": until.isoformat()})


class Resending:
    """One reconcile over a ledger that may have been lost. Memory: the keys of what was written since the record."""

    def __init__(
        self,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        record: DeliveryRecord | None,
    ) -> None:
        self._ledger = ledger
        self._destinations = destinations
        self._record = record
        self._waiting = set(record.waiting) if record else set()
        self._written_since: set[ObjectKey] = set()

    @property
    def _floor(self) -> datetime | None:
        return max(self._record.since, self._record.until - MARGIN) if self._record else None

    def note(self, info: ObjectInfo) -> None:
        """Note a listed manifest, end record or tombstone written since events are not known to be delivered."""
        if self._floor is not None and (info.updated_at is None or info.updated_at >= self._floor):
            self._written_since.add(info.key)

    def end(self) -> int:
        """Put the events into the outbox, and note in the ledger that this was done; return how many. Call when the
        ledger has been rebuilt. Raises StorageError, LedgerError."""
        sent = 0
        if self._record is not None:
            for batch in _batches(self._missing(self._ledger.rows(sorted(EVENT_STATES)))):
                sent += self._ledger.replay(batch)
        record = self._record
        times = {"since": record.since.isoformat(), "until": record.until.isoformat()} if record else {}
        self._ledger.remember(FACT, times)
        if sent:
            log.warning("events_sent_again", events=sent, since=str(self._floor))
        return sent

    def _missing(self, rows: Iterable[Row]) -> Iterator[str]:
        for row in rows:
            if (row.asset_id, row.state.value) in self._waiting or self._is_newer(row):
                yield row.asset_id

    def _is_newer(self, row: Row) -> bool:
        if row.state in REMOVED_STATES:
            return keys.tombstone_key(row.asset_id) in self._written_since
        key = keys.manifest_key(row.asset_id, row.created_at)
        if keys.end_record_beside(key) in self._written_since:
            return True
        if key not in self._written_since:
            return False
        return row.state is not AssetState.ARCHIVED or self._came_since(key)

    def _came_since(self, key: ObjectKey) -> bool:
        """Whether the manifest itself says so: a copied bucket has new times. True when that cannot be read."""
        assert self._floor is not None
        for store in self._destinations:
            try:
                manifest = read_manifest(store, key)
            except ManifestError:
                return True
            if manifest is not None:
                return manifest.approved_at >= self._floor
        return True


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for each in ids:
        batch.append(each)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
