"""Write the catalogues (upkeep.catalogue) whose manifests changed: each night, at every destination.

One LIST of all manifests tells which months changed since their catalogue was written: a new asset, a mark, a verdict,
an erasure. Those are written, the newest months first, until the run has lasted LONGEST_RUN; the rest the next night.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt import urgency
from archiver.core.health_rules import Finding, finding
from archiver.core.locks import Lock, acquire
from archiver.core.records import keys
from archiver.core.upkeep.catalogue import write_catalogue
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts
from storage_backends.base import ObjectInfo, StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

FACT = "catalogue"
EVERY = timedelta(days=1)
_TOLERANCE = timedelta(hours=4)
"""By how much earlier than the last time a nightly run may come."""
LONGEST_RUN = timedelta(hours=1)
"""No month is begun later."""
LATE_AFTER = timedelta(days=3)
"""Without a run that wrote what is due at a destination, `status` says so."""
_LOCK = "catalogue"
_LOCK_TTL = timedelta(minutes=30)
_EXTEND_EVERY = 60.0  # seconds


class Cataloguer:
    """Memory: a fingerprint for each month, and one catalogue."""

    def __init__(
        self,
        *,
        ledger: Facts,
        destinations: Sequence[StorageBackend],
        clock: Callable[[], datetime],
        wanted: bool,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: the ledger's. `elapsed`: seconds of a clock that is never set."""
        self._ledger = ledger
        self._destinations = list(destinations)
        self._clock = clock
        self._wanted = wanted
        self._elapsed = elapsed

    def write_due(self) -> int:
        """Return how many catalogues were written. At most once a day for each destination; what cannot be written now
        is told in `status`, and tried again the next night. Idempotent. Raises LedgerError."""
        if not self._wanted:
            self._ledger.forget(FACT)
            return 0
        with acquire(self._ledger, _LOCK, _LOCK_TTL) as lock:
            if lock is None:
                return 0
            until = self._elapsed() + LONGEST_RUN.total_seconds()
            return sum(self._write_at(store, lock, until) for store in self._destinations)

    def _write_at(self, store: StorageBackend, lock: Lock, until: float) -> int:
        known = _of_destination(self._ledger.recall(FACT), store.name)
        now, last = self._clock(), parse_time(known.get("written_at"))
        if last is not None and timedelta() <= now - last < EVERY - _TOLERANCE:
            return 0
        months, written = dict(_months(known)), 0
        error: str | None = None
        try:
            listed = _fingerprints(store)
            there = {info.key for info in store.list(keys.CATALOGUE)}
            months = {month: months[month] for month in months if month in listed}
            due = [m for m in listed if months.get(m) != listed[m] or keys.catalogue_key(m) not in there]
            for month in sorted(due, reverse=True):
                if self._elapsed() >= until or urgency.waiting(self._ledger) is not None:
                    error = "there was no time for all of it"
                    break
                written += write_catalogue(store, month, _Extending(lock, self._elapsed)).written
                months[month] = listed[month]
        except StorageError as failure:
            error = str(failure)
            log.warning("catalogue_not_written", store=store.name, reason=error)
        self._remember(
            store,
            {
                "months": months,
                "since": known.get("since") or now.isoformat(),
                "written_at": now.isoformat() if error is None else known.get("written_at"),
                "error": error,
            },
        )
        return written

    def _remember(self, store: StorageBackend, entry: Mapping[str, object]) -> None:
        fact = self._ledger.recall(FACT)
        others = {each.name: _of_destination(fact, each.name) for each in self._destinations}
        self._ledger.remember(FACT, {"destinations": {**others, store.name: entry}})


def catalogue_findings(fact: Mapping[str, object] | None, now: datetime) -> Iterator[Finding]:
    destinations = (fact or {}).get("destinations")
    for name in sorted(destinations) if isinstance(destinations, dict) else ():
        known = _of_destination(fact, name)
        last = parse_time(known.get("written_at"))
        began = last or parse_time(known.get("since"))
        if began is not None and now - began > LATE_AFTER:
            why = f": {known['error']}" if known.get("error") else ""
            yield finding(
                "catalogue_is_late",
                f"The tables in catalogue/ at {name} have not been renewed since {began:%Y-%m-%d}{why}.",
                cause=name,
            )


class _Extending:
    """Keeps the lock while a month is read."""

    def __init__(self, lock: Lock, elapsed: Callable[[], float]) -> None:
        self._lock = lock
        self._elapsed = elapsed
        self._extended_at = float("-inf")

    def __call__(self, _phase: str, _done: int = 0, _total: int | None = None, /, **_read: object) -> None:
        if self._elapsed() - self._extended_at >= _EXTEND_EVERY:
            self._extended_at = self._elapsed()
            self._lock.extend()


def _fingerprints(store: StorageBackend) -> dict[str, str]:
    """Return for each month a digest of what a LIST shows of its manifests, in whatever order. Raises StorageError."""
    found: dict[str, int] = {}
    for info in store.list(keys.MANIFESTS):
        if (month := keys.month_of(info.key)) is not None:
            found[month] = found.get(month, 0) ^ _number(info)
    return {month: f"{number:032x}" for month, number in found.items()}


def _number(info: ObjectInfo) -> int:
    shown = repr((info.key, info.size_bytes, info.etag, info.updated_at))
    return int.from_bytes(hashlib.sha256(shown.encode(errors="surrogateescape")).digest()[:16])


def _of_destination(fact: Mapping[str, object] | None, name: str) -> Mapping[str, object]:
    destinations = (fact or {}).get("destinations")
    found = destinations.get(name) if isinstance(destinations, dict) else None
    return found if isinstance(found, dict) else {}


def _months(known: Mapping[str, object]) -> Mapping[str, str]:
    months = known.get("months")
    return months if isinstance(months, dict) else {}
