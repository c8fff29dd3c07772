"""Find assets and their copies by the manifests of the destinations alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from archiver.core.errors import AssetErased
from archiver.core.records import keys, tombstones
from archiver.core.records.manifest import Manifest, find_manifest
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.hms.models import Asset
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import ObjectCold, StorageError

READERS = 8
"""Manifests read at the same time."""
_READ_AHEAD = 32
_DAYS_AROUND = (0, 1, -1)
_OBJECT_ID = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which assets. Without ids all of them, those that match every filter. `since` and `until`: created then or
    later, and before."""

    asset_ids: tuple[str, ...] = ()
    room: str = ""
    session: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, asset: Asset) -> bool:
        if self.room not in ("", asset.room_id) or self.session not in ("", asset.session_id):
            return False
        created_at = asset.created_at
        if created_at is None:
            return self.since is None and self.until is None
        return (self.since is None or created_at >= self.since) and (
            self.until is None or created_at < self.until
        )

    def may_match(self, key: ObjectKey) -> bool:
        """Judge by the day in the key of a manifest alone."""
        day = keys.created_on(key)
        if day is None:
            return self.since is None and self.until is None
        return (self.since is None or day + timedelta(days=1) > self.since) and (
            self.until is None or day < self.until
        )


@dataclass(frozen=True, slots=True)
class Copy:
    """One destination's copy of an asset."""

    store: StorageBackend
    key: ObjectKey
    manifest: Manifest

    @property
    def asset(self) -> Asset:
        return Asset.parse({**self.manifest.asset, "id": self.manifest.asset_id})


@dataclass(frozen=True, slots=True)
class Cold:
    """An object in a storage class that must be thawed before it can be read."""

    store: StorageBackend
    key: ObjectKey
    size_bytes: int


@dataclass(slots=True)
class Copies:
    """The copies of one asset, read as they are needed, the nearest first. `problems`: why a destination's manifest
    could not be used; `cold`: manifests in a storage class that must be thawed first. `witnesses`: destinations whose
    tombstone of the asset counts; of an `erased` one there is no copy, whatever manifest is left."""

    asset_id: str
    keys: tuple[ObjectKey, ...]
    stores: tuple[StorageBackend, ...]
    witnesses: tuple[StorageBackend, ...] = ()
    erased: bool = False
    problems: list[str] = field(default_factory=list)
    cold: list[Cold] = field(default_factory=list)
    errors: list[StorageError] = field(default_factory=list)
    _read: list[Copy] = field(default_factory=list)
    _next: int = 0
    _asked: bool = False

    def best(self) -> Copy | None:
        """Return the first copy that is neither damaged nor doubted; else the first that is not damaged, or any."""
        for copy in self:
            if copy.manifest.trusted and not copy.manifest.damage and not self.erased:
                return copy
        if self.erased:
            return None
        return min(
            self._read, key=lambda copy: (bool(copy.manifest.damage), not copy.manifest.trusted), default=None
        )

    def __iter__(self) -> Iterator[Copy]:
        """Read each destination's manifest once. A destination that cannot be read is noted, not raised."""
        self._ask_for_tombstones(self.asset_id)
        at = 0
        while not self.erased:
            while at < len(self._read):
                yield self._read[at]
                at += 1
            if self._next == len(self.stores):
                return
            self._next += 1
            self._read_from(self.stores[self._next - 1])

    def _ask_for_tombstones(self, asset_id: str) -> None:
        """A destination that does not answer is no witness."""
        if self._asked and asset_id == self.asset_id:
            return
        self._asked = True
        for store in self.witnesses:
            try:
                tombstones.check(store, asset_id)
            except AssetErased as error:
                self.erased = True
                self.problems.append(f"{error}. It does not come back")
                return
            except StorageError:
                continue

    def forget(self) -> None:
        """Drop the manifests: they are read again when they are needed."""
        self._read, self._next, self._asked, self.erased = [], 0, False, False
        self.problems, self.cold, self.errors = [], [], []

    def _read_from(self, store: StorageBackend) -> None:
        for key in self.keys:
            try:
                found = find_manifest(store, key)
            except ObjectCold as error:
                self.cold.append(Cold(store, key, 0))
                self.problems.append(str(error))
                continue
            except StorageError as error:
                self.errors.append(error)
                self.problems.append(str(error))
                continue
            if found is None:
                continue
            manifest = found.manifest
            if manifest is None:
                self.problems.append(found.problem or f"{store.name}/{key} cannot be understood")
            else:
                if manifest.asset_id != self.asset_id:  # its key holds but a hash of it
                    self._ask_for_tombstones(manifest.asset_id)
                self._read.append(Copy(store, key, manifest))
                return


Away = Callable[[StorageError], None]


def _not_told(_error: StorageError) -> None:
    """Nobody wants to know."""


def find(
    stores: Sequence[StorageBackend],
    selection: Selection,
    on_progress: OnProgress = ignore_progress,
    away: Away = _not_told,
    witnesses: Sequence[StorageBackend] | None = None,
) -> Iterator[Copies]:
    """Yield the selected assets, by date. An id of which no destination has a manifest is yielded without keys. `away`
    is called for each destination that cannot be listed: what it alone has is not found. `witnesses`: destinations
    whose tombstones count; by default `stores`.

    Requests: for ids a LIST of the days around the one in a 100ms id; otherwise, and for ids that are not there, one
    for each 1,000 manifests of the time asked for, and a GET for each manifest when a room or session is asked for.
    Raises StorageError when no destination can be listed."""
    asked = tuple(stores if witnesses is None else witnesses)
    if selection.asset_ids:
        yield from _by_id(stores, selection, on_progress, away, asked)
        return
    listed = _listed(stores, _prefixes(selection), on_progress, away)
    found: dict[str, tuple[ObjectKey, ...]] = {}
    for key in listed:
        if selection.may_match(key):
            name = key.rpartition("/")[2]
            found[name] = (*found.get(name, ()), key)
    together = sorted(found.items(), key=lambda item: min(item[1]))
    searched = tuple(stores)
    chosen = (
        Copies(keys.asset_id_of(min(each)) or name, tuple(sorted(each)), searched, asked)
        for name, each in together
    )
    yield from _matching(chosen, len(together), selection, on_progress)


def _by_id(
    stores: Sequence[StorageBackend],
    selection: Selection,
    on_progress: OnProgress,
    away: Away,
    witnesses: tuple[StorageBackend, ...],
) -> Iterator[Copies]:
    wanted = {_name_of(id_): id_ for id_ in selection.asset_ids}
    guessed = {prefix for id_ in wanted.values() for prefix in _days_of(id_)}
    found: dict[str, set[ObjectKey]] = {name: set() for name in wanted}
    for key in _listed(stores, sorted(guessed), on_progress, _not_told) if guessed else ():
        if (name := key.rpartition("/")[2]) in found:
            found[name].add(key)
    if not all(found.values()):
        for key in _listed(stores, [keys.MANIFESTS], on_progress, away):
            if (name := key.rpartition("/")[2]) in found:
                found[name].add(key)
    for name, id_ in wanted.items():
        copies = Copies(id_, tuple(sorted(found[name])), tuple(stores), witnesses)
        copy = (
            copies.best()
            if (selection.room or selection.session or selection.since or selection.until)
            else None
        )
        if copy is None or selection.matches(copy.asset):
            copies.forget()
            yield copies


def _matching(
    chosen: Iterable[Copies], number: int, selection: Selection, on_progress: OnProgress
) -> Iterator[Copies]:
    """Yield those whose manifest matches; one that cannot be read may match, and is told of when it is restored."""
    reads = bool(selection.room or selection.session or selection.since or selection.until)
    if not reads:
        yield from chosen
        return
    with ThreadPoolExecutor(READERS, thread_name_prefix="manifests") as pool:
        waiting: list[tuple[Copies, Future[Copy | None]]] = []
        done = 0
        left = iter(chosen)
        try:
            while True:
                while len(waiting) < _READ_AHEAD and (copies := next(left, None)) is not None:
                    waiting.append((copies, pool.submit(copies.best)))
                if not waiting:
                    return
                copies, reading = waiting.pop(0)
                copy = reading.result()
                done += 1
                on_progress("reading manifests", done, number)
                if copy is None or selection.matches(copy.asset):
                    copies.forget()
                    yield copies
        finally:
            pool.shutdown(cancel_futures=True)


def _listed(
    stores: Sequence[StorageBackend], prefixes: Collection[str], on_progress: OnProgress, away: Away
) -> set[ObjectKey]:
    """List the manifests of every destination. Raises StorageError when none can be listed."""
    found: set[ObjectKey] = set()
    failed: list[StorageError] = []
    for store in stores:
        on_progress(f"listing {store.name}")
        try:
            for prefix in prefixes:
                found.update(info.key for info in store.list(prefix) if info.key.endswith(".json"))
        except StorageError as error:
            failed.append(error)
            away(error)
    if failed and len(failed) == len(stores):
        raise failed[0]
    return found


def _prefixes(selection: Selection) -> list[str]:
    """Return the prefixes of the manifests of the time asked for, by month where that is bounded."""
    first, last = selection.since, selection.until
    if first is None:
        return [keys.MANIFESTS]
    last = last or datetime.now(UTC) + timedelta(days=1)
    first, last = first.astimezone(UTC), last.astimezone(UTC)
    months: list[str] = []
    year, month = first.year, first.month
    while (year, month) <= (last.year, last.month) and len(months) <= 1200:
        months.append(keys.manifests_of(f"{year:04}-{month:02}"))
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return months


def _days_of(asset_id: str) -> Iterator[str]:
    """Yield the prefixes of the days around the creation of a 100ms id, which begins with its time."""
    if not _OBJECT_ID.fullmatch(asset_id):
        return
    at = datetime.fromtimestamp(int(asset_id[:8], 16), UTC)
    for days in _DAYS_AROUND:
        key = keys.manifest_key(asset_id, at + timedelta(days=days))
        yield key  # a prefix that is the whole key: lists one object


def _name_of(asset_id: str) -> str:
    return keys.manifest_key(asset_id, None).rpartition("/")[2]
