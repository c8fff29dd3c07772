"""Make the statements that are due: one for each month and destination (core.records.statements).

A month is due when no asset of it can be archived any more: its last day, the retention, and a day. The first
statement is of the first month that has a manifest, and every later month follows, also an empty one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from archiver.core.records import keys, statements
from archiver.core.records.statements import SigningKey, Stated, StatementRefused
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.statement_report import record_statements
from archiver.ledger.base import Facts
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.conditional import replace_if
from storage_backends.errors import ObjectChanged, ObjectMissing, StorageError

log = structlog.get_logger(__name__)

READERS = 8
_AT_ONCE = 1000


class TimeStamps(Protocol):
    def stamp(self, digest: bytes, /) -> bytes:
        """Return an RFC 3161 response for a SHA-256. Raises TimeStampRefused."""
        ...


class TimeStampRefused(Exception):
    """No time stamp now: the next run tries again."""


@dataclass(frozen=True, slots=True)
class Made:
    """A statement of one destination. `written`: by this run. `stamped`: None when no time stamps are wanted."""

    month: str
    key: ObjectKey
    assets: int
    ends: int
    written: bool
    stamped: bool | None


class Stater:
    """Makes what is due at every destination, each night. `key`: None: no statements are wanted. `stamps`: opens what
    gives time stamps."""

    def __init__(
        self,
        *,
        ledger: Facts,
        destinations: Sequence[StorageBackend],
        key: SigningKey | None,
        clock: Callable[[], datetime],
        retention: timedelta,
        version: str,
        stamps: Callable[[], AbstractContextManager[TimeStamps]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._destinations = destinations
        self._key = key
        self._clock = clock
        self._retention = retention
        self._version = version
        self._stamps = stamps

    def state_due(self) -> int:
        """Return how many statements were written. What cannot be made now is logged, reported to `status`, and tried
        again the next night. Idempotent. Raises LedgerError."""
        if self._key is None:
            return 0
        written = 0
        failed: dict[str, str | None] = {}
        with self._stamps() if self._stamps is not None else nullcontext() as stamps:
            for store in self._destinations:
                failed[store.name] = None
                made = state(
                    store,
                    self._key,
                    clock=self._clock,
                    retention=self._retention,
                    version=self._version,
                    stamps=stamps,
                )
                try:
                    written += sum(each.written for each in made)
                except StatementRefused as error:
                    log.error("statement_refused", store=store.name, reason=str(error))
                    failed[store.name] = str(error)
                except StorageError as error:
                    log.warning("statement_not_made", store=store.name, reason=str(error))
                    failed[store.name] = str(error)
                except TimeStampRefused as error:  # the statements themselves are there
                    log.warning("statement_not_made", store=store.name, reason=str(error))
        record_statements(self._ledger, failed, self._clock())
        return written


def due_months(store: StorageBackend, now: datetime, retention: timedelta) -> list[str]:
    """Return the months from the first that has a manifest to the last that is due. Raises StorageError."""
    stated = statements.months_stated(store)
    if stated:
        first = stated[0]
    else:
        dated = (keys.month_of(info.key) for info in store.list(keys.MANIFESTS))
        first = min((month for month in dated if month not in (None, keys.UNDATED_MONTH)), default="") or ""
    months = []
    while first and now >= statements.due_at(first, retention):
        months.append(first)
        first = statements.next_month(first)
    return months


def state(
    store: StorageBackend,
    key: SigningKey,
    *,
    clock: Callable[[], datetime],
    retention: timedelta,
    version: str,
    stamps: TimeStamps | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[Made]:
    """Make every statement that is due and lacking, the first month first. Idempotent; may be ended at any point. Two
    processes at once make one. Memory: the statement of a month, about 400 bytes for each asset. Raises
    StatementRefused, StorageError; TimeStampRefused when all else is done."""
    previous: Stated | None = None
    refusal: TimeStampRefused | None = None
    for month in due_months(store, clock(), retention):
        found = statements.read(store, month)
        if found is None:
            data = _made(store, month, previous, key, clock(), version, on_progress)
            data = statements.store_statement(store, month, data, key)
            log.info("statement_written", store=store.name, month=month)
        else:
            data = found[1]
            statements.sign(store, found[0], data, key)
        parsed = json.loads(data)
        previous = Stated(month, hashlib.sha256(data).hexdigest(), parsed["public_key"])
        stamped = None
        if stamps is not None:
            try:
                stamped = _stamp(store, month, data, stamps)
            except TimeStampRefused as error:
                refusal, stamped = error, False
        yield Made(
            month,
            statements.key_of(month),
            len(parsed["assets"]),
            len(parsed["ends"]),
            found is None,
            stamped,
        )
    if refusal is not None:
        raise refusal


def _made(
    store: StorageBackend,
    month: str,
    previous: Stated | None,
    key: SigningKey,
    now: datetime,
    version: str,
    on_progress: OnProgress,
) -> bytes:
    listed = sorted(i.key for i in store.list(keys.manifests_of(month)) if i.key.endswith(".json"))
    undated = sorted(
        i.key for i in store.list(keys.manifests_of(keys.UNDATED_MONTH)) if i.key.endswith(".json")
    )
    assets = []
    for number, entry in enumerate(_entries(store, [*listed, *undated])):
        on_progress(f"reading manifests of {month} at {store.name}", number, len(listed) + len(undated))
        is_dated = not str(entry["manifest"]).startswith(keys.manifests_of(keys.UNDATED_MONTH))
        if is_dated or str(entry.get("archived_at", "")).startswith(month):
            assets.append(entry)
    ends = []
    for info in store.list(keys.ends_of(month)):
        data = statements.read_whole(store, info.key)
        if data is not None and info.key.endswith(".json"):
            ends.append(
                {"record": info.key, "sha256": hashlib.sha256(data).hexdigest(), "state": _state(data)}
            )
    return statements.written(
        month=month,
        destination=store.name,
        made_at=now,
        version=version,
        previous=previous,
        public_key=key.public,
        assets=assets,
        ends=sorted(ends, key=lambda end: str(end["record"])),
    )


def _entries(store: StorageBackend, manifests: list[ObjectKey]) -> Iterator[dict[str, Any]]:
    def entry(key: ObjectKey) -> dict[str, Any] | None:
        try:
            data = statements.read_whole(store, key)
        except ObjectMissing:  # deleted in between
            return None
        return None if data is None else statements.entry_of(key, data)

    with ThreadPoolExecutor(READERS, thread_name_prefix="statement") as pool:
        for first in range(0, len(manifests), _AT_ONCE):
            yield from (e for e in pool.map(entry, manifests[first : first + _AT_ONCE]) if e is not None)


def _state(data: bytes) -> str | None:
    try:
        state = json.loads(data)["state"]
    except (ValueError, KeyError, TypeError):
        return None
    return state if isinstance(state, str) else None


def _stamp(store: StorageBackend, month: str, data: bytes, stamps: TimeStamps) -> bool:
    """Return whether a time stamp was added."""
    key = statements.key_of(month, "tsr")
    if store.stat(key) is not None:
        return False
    response = stamps.stamp(hashlib.sha256(data).digest())
    try:
        spec = ObjectSpec(key, "application/timestamp-reply", len(response), lock=True)
        replace_if(store, spec, response, crc32c(response), None)
    except ObjectChanged:
        return False
    return True
