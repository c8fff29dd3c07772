"""Rebuild the ledger from the manifests and end records at the destinations.

Their union counts: an asset that only one destination has is not archived, and is not forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

import structlog

from archiver.core.attempt.doubts import reason_kept
from archiver.core.deadlines import UNDATED, UNDATED_RETENTION, is_over, is_plausible
from archiver.core.errors import ManifestError
from archiver.core.judging import Scope, as_known, judge
from archiver.core.records import end_records, keys
from archiver.core.records.commit import (
    LACKING,
    committed,
    damaged_settlement,
    kept,
    mark_damaged,
    read_back,
    read_twice,
)
from archiver.core.records.end_records import EndRecord
from archiver.core.records.manifest import Manifest, find_manifest, read_manifest
from archiver.core.records.verify import verify_listed
from archiver.core.upkeep.full_reads import FullReads
from archiver.core.upkeep.gaps import Gap, judge_gap
from archiver.core.upkeep.review import restore_decisions
from archiver.hms.models import Asset
from archiver.ledger.base import Schedule
from archiver.ledger.models import OPEN_STATES, AssetState, CopyState, Row, Seen, Settlement
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

T = TypeVar("T")

_AT_ONCE = 200
"""Assets handed to the readers at once: the caller's lock is extended in between."""
_NOTHING, _UNREADABLE = (0, 0), (0, 1)
_NEVER = datetime.min.replace(tzinfo=UTC)

_KEPT_AFTER_ALL = (AssetState.LOST, AssetState.NEEDS_SOURCE_ACCESS)
"""Ends with nothing stored, which a manifest with doubts contradicts."""

_NEVER_ARCHIVED = (AssetState.QUARANTINED, AssetState.NEEDS_SOURCE_ACCESS, AssetState.SOURCE_FAILED)
"""Ends that a manifest without doubts contradicts, whole or not. A person may have rejected what was damaged."""


class Identities(Protocol):
    """Which destinations these are: `core.destinations.checked`."""

    def check_all(self) -> bool: ...

    def is_identified(self, name: str, /) -> bool: ...

    def began_empty_at(self, name: str, /) -> datetime | None: ...

    def filling(self) -> list[str]: ...

    def filled(self, name: str, /) -> None: ...


class Rebuilder:
    """Every method is idempotent. Raises StorageError, LedgerError."""

    def __init__(
        self,
        *,
        ledger: Schedule,
        destinations: Sequence[StorageBackend],
        scope: Scope,
        clock: Callable[[], datetime],
        identities: Identities,
        readers: int = 1,
        key_template: str = keys.DEFAULT_TEMPLATE,
    ) -> None:
        """`readers`: how many assets are read at the same time, each in a thread of its own."""
        self._templates = (key_template, keys.DEFAULT_TEMPLATE)
        self._listed: Sequence[Collection[ObjectKey]] = ()
        self._names: frozenset[str] | None = None
        self._end_keys: Collection[ObjectKey] = ()
        self._ledger = ledger
        self._destinations = list(destinations)
        self._scope = scope
        self._clock = clock
        self._identities = identities
        self._readers = readers

    def compare_folders_with(self, listed: Sequence[Collection[ObjectKey]]) -> None:
        """Believe no manifest from now on whose folder is, or is in, one of another asset in `listed`: the manifests of
        each destination."""
        self._listed, self._names = listed, None

    def read_back_what_ended(self, end_keys: Collection[ObjectKey]) -> None:
        """From now on an asset that the ledger does not know, or knows as due, and that has an end record in `end_keys`
        which calls it damaged, is archived only when every byte is right. Its manifest may not have let itself be
        marked."""
        self._end_keys = end_keys

    def enter_archived(
        self, manifest_keys: Iterable[ObjectKey], reads: FullReads | None = None
    ) -> tuple[int, int]:
        """Enter assets that have a manifest at every destination; how many are newly archived, and how many manifests
        cannot be understood. `reads`: leave out what it knows to be damaged; None: nothing."""
        entered = unreadable = 0
        for came, not_understood in self._each(partial(self._enter_archived, reads), manifest_keys):
            entered += came
            unreadable += not_understood
        return entered, unreadable

    def _each(self, enter: Callable[[ObjectKey], T], manifest_keys: Iterable[ObjectKey]) -> Iterator[T]:
        """Call `enter` for each key, `readers` at a time: most of it is waiting for a store."""
        if self._readers == 1:
            yield from map(enter, manifest_keys)
            return
        remaining = iter(manifest_keys)
        with ThreadPoolExecutor(self._readers, thread_name_prefix="rebuild") as pool:
            while some := list(islice(remaining, _AT_ONCE)):
                yield from pool.map(enter, some)

    def _enter_archived(self, reads: FullReads | None, key: ObjectKey) -> tuple[int, int]:
        row = self._row(key)
        if row is not None and row.state in (AssetState.ARCHIVED, AssetState.RUNNING):
            return _NOTHING
        if row is not None and row.state not in OPEN_STATES and reads is not None and reads.knows(row):
            return _NOTHING
        if (
            row is not None
            and not self._holds(key, row, reads)
            and not (row.state in _KEPT_AFTER_ALL and self._keeps(key))
        ):
            if row.state is AssetState.LOST:
                return self._look_for_a_whole_copy(key, row)
            self._settle_archived_since(key, row)
            return _NOTHING  # it was reopened because of what its manifest says, or since the lists were made
        read = {store.name: self.read(store, key) for store in self._destinations}
        manifests = {name: manifest for name, manifest in read.items() if manifest is not None}
        if not read or len(manifests) < len(read):
            if row is None and manifests and self._is_understood_nowhere_else(key, manifests):
                self._enter_unknown(key, manifests)
            return _UNREADABLE
        manifest = next(iter(manifests.values()))
        if row is not None and _is_resized(row, manifest):
            return _NOTHING  # its source is about to be looked at
        if any(each.damage for each in manifests.values()):
            if row is None:
                self._enter_not_whole(manifests)
            return _NOTHING
        if row is None and (missing := self._missing(manifests)) != {}:
            if missing:
                self._enter_not_whole(manifests, missing)
            return _NOTHING
        if row is None and not self._is_read_back(key, manifests, reads):
            return _NOTHING  # it is entered from its end record
        changed = self._ledger.record_archived(self._seen(manifest), self.settlement(key, manifests))
        if changed and row is not None and self._was_marked(key, manifests):
            self._ledger.reopen(row.asset_id)
            return _NOTHING
        return int(changed), 0

    def enter_partial(self, manifest_keys: Iterable[ObjectKey]) -> tuple[int, int]:
        """Enter assets that have a manifest at some destinations only; how many the ledger did not know, and how many
        manifests cannot be understood. They are due while the source lasts; then a person can restore the copy."""
        entered = unreadable = 0
        for key in manifest_keys:
            row = self._row(key)
            if row is not None and row.state is not AssetState.LOST:
                self._settle_archived_since(key, row)
                continue
            read = {store.name: self.read(store, key) for store in self._destinations if store.stat(key)}
            manifests = {name: manifest for name, manifest in read.items() if manifest is not None}
            if len(manifests) < len(read):
                unreadable += 1
                if not self._is_understood_nowhere_else(key, manifests):
                    continue
            if not manifests:  # gone since the lists were made
                continue
            if row is not None:
                self._find_again(key, row, manifests)
                continue
            if not self._is_read_back(key, manifests, None):
                continue
            entered += self._enter_unknown(key, manifests)
        return entered, unreadable

    def enter_ends(
        self,
        record_keys: Iterable[ObjectKey],
        is_later: Callable[[EndRecord, Row], bool] = lambda _record, _row: False,
    ) -> int:
        """Enter assets that the ledger does not know from their end records; how many. Restore the decisions on
        those that are in the same end, and a rejection that is later than what the ledger knows (`is_later`): it was
        rolled back. Call after the manifests were entered, which say more."""
        entered = 0
        for key in record_keys:
            row = self._row(key)
            if row is not None:
                asked = row.state in end_records.RECORDED_STATES and row.acknowledged is None
                if asked and (known := self._record(key)) is not None:
                    if known.state == AssetState.REJECTED and is_later(known, row):
                        self._reject_again(row, known)
                    restore_decisions(self._ledger, known)
                continue
            record = self._record(key)
            if record is None or self._ledger.get(record.seen.asset_id) is not None:
                continue
            if record.state not in end_records.RECORDED_STATES:
                log.error("end_not_understood", key=key, state=record.state)
                continue
            how = Settlement(AssetState(record.state), reason=record.reason or None)
            entered += self._ledger.record_archived(self._dated(record.seen), how)
            restore_decisions(self._ledger, record)
        return entered

    # -- inside --------------------------------------------------------------------------------------------

    def _enter_unknown(self, key: ObjectKey, manifests: Mapping[str, Manifest]) -> int:
        manifest = next(
            (each for each in manifests.values() if not each.damage), next(iter(manifests.values()))
        )
        seen = self._seen(manifest)
        if not self._is_over(manifest):
            return self._discover(seen)
        lacking = [store.name for store in self._destinations if store.name not in manifests]
        ends = self._ends_at(manifest)
        gap = judge_gap(
            over=True,
            whole_somewhere=True,
            expected=all(is_newer(self._identities.began_empty_at(name), ends) for name in lacking),
            filling=False,
            doubted=not manifest.trusted,
        )
        missing = self._missing(manifests)
        if missing is None:
            return 0
        if gap is Gap.MISSING_COPY and not missing and not any(each.damage for each in manifests.values()):
            return self._ledger.record_archived(seen, self.settlement(key, manifests))
        self._enter_damaged(manifests, missing)
        return 1

    def _enter_not_whole(
        self, manifests: Mapping[str, Manifest], missing: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """For an asset that the ledger does not know."""
        manifest = next(iter(manifests.values()))
        if self._is_over(manifest):
            self._enter_damaged(manifests, missing)
        else:
            self._discover(self._seen(manifest))

    def _discover(self, seen: Seen) -> int:
        """Enter an asset as due, unless it has an end, which is entered later; how many. Its source lasts, but 100ms
        may have deleted it early, and then no sweep would enter it."""
        if self._record(keys.end_record_key(seen.asset_id, seen.created_at)) is not None:
            return 0
        return self._ledger.discover([seen])

    def _look_for_a_whole_copy(self, key: ObjectKey, row: Row) -> tuple[int, int]:
        """For a lost asset that has a manifest everywhere, and is not whole everywhere."""
        read = {store.name: self.read(store, key) for store in self._destinations}
        manifests = {name: manifest for name, manifest in read.items() if manifest is not None}
        if manifests:
            self._find_again(key, row, manifests)
        return _NOTHING if len(manifests) == len(read) else _UNREADABLE

    def _settle_archived_since(self, key: ObjectKey, row: Row) -> None:
        """For an asset in _NEVER_ARCHIVED that was archived since by its manifests, and is not whole any more: the
        ledger was rolled back. It is due again, or damaged once its source has ended; the old reason would tell of
        doubts that nobody has any more."""
        if row.state not in _NEVER_ARCHIVED:
            return
        there = [store for store in self._destinations if store.stat(key)]
        manifests = {s.name: manifest for s in there if (manifest := self.read(s, key)) is not None}
        if not manifests or len(manifests) < len(there):
            return
        if not all(manifest.trusted for manifest in manifests.values()):
            return
        if not is_over(row, self._clock()):
            if row.state is not AssetState.SOURCE_FAILED:  # which the next sweep judges again
                self._ledger.reopen(row.asset_id)
        elif (missing := self._missing(manifests)) is not None:
            log.error("archived_since", asset_id=row.asset_id, was=row.state, stores=sorted(manifests))
            self._enter_damaged(manifests, missing)

    def _is_understood_nowhere_else(self, key: ObjectKey, manifests: Mapping[str, Manifest]) -> bool:
        """Whether every other manifest at `key` is there and says nothing, rather than could not be read just now."""
        try:
            others = [
                find_manifest(store, key) for store in self._destinations if store.name not in manifests
            ]
        except StorageError:
            return False
        return all(found is None or found.manifest is None for found in others)

    def _find_again(self, key: ObjectKey, row: Row, manifests: Mapping[str, Manifest]) -> None:
        """An asset called lost that is whole somewhere is damaged, not lost."""
        try:
            whole = [s.name for s in self._destinations if s.name in manifests and committed(s, key)]
        except StorageError as error:
            log.warning("manifest_not_readable", key=key, reason=str(error))
            return
        if whole:
            log.error("found_again", asset_id=row.asset_id, stores=whole)
            self._enter_damaged({name: manifests[name] for name in whole})

    def _reject_again(self, row: Row, record: EndRecord) -> None:
        """A person called it worthless, which the ledger has forgotten."""
        log.warning("rejected_since", asset_id=row.asset_id, was=row.state, reason=record.reason)
        how = Settlement(
            AssetState.REJECTED,
            reason=record.reason or None,
            stored_bytes=row.stored_bytes,
            stored_objects=row.stored_objects,
        )
        self._ledger.record_archived(as_known(row), how)

    def _record(self, key: ObjectKey) -> EndRecord | None:
        """Return the latest that a destination has."""
        read = (end_records.read(store, key) for store in self._destinations)
        found = [record for record in read if record is not None]
        return max(found, key=lambda each: each.recorded_at or _NEVER, default=None)

    def _dated(self, seen: Seen) -> Seen:
        """Add the deadline that an earlier version did not record."""
        if seen.expires_at != UNDATED or seen.created_at is None:
            return seen
        if not is_plausible(seen.created_at, self._clock()):
            return seen
        try:
            return replace(seen, expires_at=seen.created_at + self._scope.retention)
        except OverflowError:
            return seen

    def _row(self, key: ObjectKey) -> Row | None:
        asset_id = keys.asset_id_of(key)
        return self._ledger.get(asset_id) if asset_id else None

    def settlement(self, key: ObjectKey, manifests: Mapping[str, Manifest]) -> Settlement:
        """Archived; with doubts at any destination quarantined, or rejected if a person did so."""
        doubted = next((each for each in manifests.values() if not each.trusted), None)
        if doubted is None:
            manifest = next(iter(manifests.values()))
            return Settlement(
                AssetState.ARCHIVED,
                stored_bytes=manifest.total_size,
                stored_objects=len(manifest.objects),
                warnings=manifest.warnings,
                copies=self._copies(manifests),
            )
        record = self._record(keys.end_record_beside(key))
        rejected = record is not None and record.state == AssetState.REJECTED
        return Settlement(
            AssetState.REJECTED if rejected else AssetState.QUARANTINED,
            reason=reason_kept(doubted),
            stored_bytes=doubted.total_size,
            stored_objects=len(doubted.objects),
            copies=self._copies(manifests),
        )

    def _copies(self, manifests: Mapping[str, Manifest]) -> Mapping[str, CopyState]:
        names = (store.name for store in self._destinations)
        return {name: CopyState.WHOLE if name in manifests else CopyState.LACKING for name in names}

    def _keeps(self, key: ObjectKey) -> bool:
        """Return whether every destination has it whole, with or without doubts, to the last byte."""
        try:
            for store in self._destinations:
                manifest = committed(store, key) or kept(store, key)
                if manifest is None or not read_back(store, key, manifest):
                    return False
            return True
        except StorageError as error:
            log.warning("manifest_not_readable", key=key, reason=str(error))
            return False

    def _was_marked(self, key: ObjectKey, manifests: Mapping[str, Manifest]) -> bool:
        """Whether a manifest was marked as damaged since it was read, by a scrub or a person."""
        for store in self._destinations:
            now = self.read(store, key)
            if now is not None and now.damage and not manifests[store.name].damage:
                return True
        return False

    def _missing(self, manifests: Mapping[str, Manifest]) -> Mapping[str, Sequence[str]] | None:
        """Return by destination the objects of its manifest that are missing or differ; None when that cannot be told
        now. Costs a request or a LIST for each manifest."""
        missing: dict[str, Sequence[str]] = {}
        for store in self._destinations:
            if (manifest := manifests.get(store.name)) is None:
                continue
            try:
                verified = verify_listed(store, manifest)
            except StorageError as error:
                log.warning(
                    "copy_not_listed", store=store.name, asset_id=manifest.asset_id, reason=str(error)
                )
                return None
            if not verified.ok:
                missing[store.name] = verified.problems
        return missing

    def _enter_damaged(
        self, manifests: Mapping[str, Manifest], missing: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Enter an asset whose source has ended: no sweep will find it, only its manifests."""
        manifest = next(iter(manifests.values()))
        problems: dict[str, Sequence[str]] = {store.name: (LACKING,) for store in self._destinations}
        problems |= {name: each.damage or () for name, each in manifests.items()}
        problems |= missing or {}
        how = damaged_settlement(
            manifest.asset_id,
            problems,
            stored_bytes=manifest.total_size,
            stored_objects=len(manifest.objects),
        )
        self._ledger.record_archived(self._seen(manifest), how)

    def _ends_at(self, manifest: Manifest) -> datetime:
        """As `deadlines.source_ends_at`, for an asset that the ledger does not know."""
        expires_at = self._seen(manifest).expires_at
        return manifest.archived_at + UNDATED_RETENTION if expires_at == UNDATED else expires_at

    def _is_over(self, manifest: Manifest) -> bool:
        return self._clock() >= self._ends_at(manifest)

    def _holds(self, key: ObjectKey, row: Row, reads: FullReads | None) -> bool:
        """Whether the asset is archived at every destination. One that has ended, or was found damaged, is read back: a
        store may not have let us mark its manifest, and sizes prove little. What is not whole of one that has ended is
        marked as damaged now; where that is refused too, `reads` notes it."""
        try:
            there: list[tuple[StorageBackend, Manifest]] = []
            for store in self._destinations:
                if (manifest := committed(store, key)) is None:
                    return False
                there.append((store, manifest))
            if row.state in OPEN_STATES:  # its next attempt marks what differs
                is_known = CopyState.DAMAGED in row.copies.values() or self._tells_an_end_record(key)
                return not is_known or not any(read_twice(store, manifest) for store, manifest in there)
            return self._is_right(key, there, reads)
        except StorageError as error:
            log.warning("manifest_not_readable", key=key, reason=str(error))
            return False

    def _is_right(
        self,
        key: ObjectKey,
        there: Iterable[tuple[StorageBackend, Manifest]],
        reads: FullReads | None,
    ) -> bool:
        """Whether every byte is; else it is marked or noted. Raises StorageError."""
        for store, manifest in there:
            if problems := read_twice(store, manifest):
                self._mark(store, key, manifest, problems, reads)
                return False
        return True

    def _is_read_back(
        self, key: ObjectKey, manifests: Mapping[str, Manifest], reads: FullReads | None
    ) -> bool:
        """Whether no end record says that an asset which the ledger does not know is damaged, or every byte of its
        copies is right all the same."""
        try:
            if not self._tells_an_end_record(key):
                return True
            there = [
                (store, manifests[store.name]) for store in self._destinations if store.name in manifests
            ]
            return self._is_right(key, there, reads)
        except StorageError as error:
            log.warning("manifest_not_readable", key=key, reason=str(error))
            return False

    def _tells_an_end_record(self, key: ObjectKey) -> bool:
        """Whether one says that the asset was found damaged. Raises StorageError."""
        end_key = keys.end_record_beside(key)
        if end_key not in self._end_keys:
            return False
        states = {end_records.read_state(store, end_key) for store in self._destinations}
        return not states.isdisjoint(end_records.MAY_BE_DAMAGED)

    def _mark(
        self,
        store: StorageBackend,
        key: ObjectKey,
        manifest: Manifest,
        problems: Sequence[str],
        reads: FullReads | None,
    ) -> None:
        try:
            mark_damaged(store, key, problems, of=manifest)
        except StorageError as error:
            log.warning("damage_not_marked", store=store.name, key=key, reason=str(error))
            if reads is not None:
                reads.note(manifest.asset_id)

    def read(self, store: StorageBackend, key: ObjectKey) -> Manifest | None:
        try:
            manifest = read_manifest(store, key)
            if manifest is not None and (problem := self._not_its_place(key, manifest)) is not None:
                log.error("manifest_misplaced", store=store.name, key=key, reason=problem)
                return None
            return manifest
        except (ManifestError, StorageError) as error:
            log.error("manifest_unreadable", store=store.name, key=key, reason=str(error))
            return None

    def _not_its_place(self, key: ObjectKey, manifest: Manifest) -> str | None:
        """Return why it is not where we write a manifest of this asset, or names a folder of another one; None when
        neither is so. What a template can give has no other asset's id at the place of its own; of any other folder,
        as of an earlier template, each segment is compared with the manifests that there are."""
        expected = keys.manifest_key(manifest.asset_id, Asset.parse(manifest.asset).created_at)
        if key != expected:
            return f"its manifest would be {expected}"
        if any(keys.fits_template(manifest.asset_id, manifest.folder, each) for each in self._templates):
            return None
        if self._names is None:
            self._names = frozenset(keys.record_name(each) for listed in self._listed for each in listed)
        for segment in keys.without_version(manifest.folder).split("/"):
            if f"{segment}.json" in self._names and f"{segment}.json" != keys.record_name(key):
                return f"its folder {manifest.folder} is one of {segment}"
        return None

    def _seen(self, manifest: Manifest) -> Seen:
        return judge(Asset.parse(manifest.asset), self._scope, manifest.archived_at)


def is_newer(began_empty_at: datetime | None, source_ended: datetime) -> bool:
    """Return whether a destination was added, empty, after the source of an asset had ended."""
    return began_empty_at is not None and source_ended <= began_empty_at


def _is_resized(row: Row, manifest: Manifest) -> bool:
    """Return whether the asset is due because the API says another size than when it was archived."""
    before = Asset.parse({**manifest.asset, "id": row.asset_id}).size_bytes
    return row.state in OPEN_STATES and None not in (before, row.size_bytes) and before != row.size_bytes
