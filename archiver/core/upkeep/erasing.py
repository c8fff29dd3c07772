"""Erase assets for good: objects, versions, manifests and all other records of them, at every destination.

    move the asset to ERASING       no worker gets it any more, and one that has it loses its lease
    write its tombstone             at every destination, before anything is removed at any
    remove                          manifests, the whole folder, end record, older versions; unfinished uploads;
                                    rows of catalogue and check records; the session's data
    list                            every destination again: one may have answered with success and kept
    note it in the tombstones       and move the asset to ERASED, or EXPIRED

Every step is idempotent, and two processes may do it at once. What stops half-way stays ERASING: the reconcile finishes
it from the tombstone, also when the ledger was lost. docs/erasing.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Protocol, TypeVar

import structlog

from archiver.core.deadlines import UNDATED, UNDATED_RETENTION
from archiver.core.judging import as_known
from archiver.core.records import keys, removal, tombstones
from archiver.core.records.listing_together import ALONE, Together
from archiver.core.records.manifest import find_manifest
from archiver.core.records.removal import Left, Targets
from archiver.core.records.tombstones import Tombstone
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.review import note_once
from archiver.core.upkeep.shared_folders import SharedFolders
from archiver.core.upkeep.stored_rows import Stored, find_stored
from archiver.hms.models import Asset, parse_time
from archiver.ledger.base import Schedule
from archiver.ledger.models import REMOVED_STATES, UNKNOWN_TYPE, AssetState, Decision, Row, Seen, Settlement
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import ObjectMissing, StorageError

log = structlog.get_logger(__name__)

A = TypeVar("A")
B = TypeVar("B")

ERASED, UN_ERASED = "erased", "un-erased"
"""What a decision in an asset's history says."""
AT_ONCE = 100
"""Assets of one batch: each step is done for all of them before the next. Bounds memory, and what a kill undoes."""
LOOKED_UP_AT_ONCE = 2000
"""Assets of which those that the ledger does not know are looked up together: for one that no destination has, every
manifest is listed."""
THREADS = 8
WORKER_STOPS = timedelta(minutes=5)
"""A worker that lost its lease has stopped copying by then, its last request included."""
_LOCKED = "locked until "
_INTERRUPTED = "a worker was copying it a moment ago, and may just have stored something more"


class SessionData(Protocol):
    """What is kept of a session beside its recordings."""

    def forget(self, store: StorageBackend, session_id: str, erased: Sequence[str]) -> None:
        """Remove what `store` keeps of a session, unless recordings other than `erased` need it. Idempotent. Raises
        StorageError."""
        ...


@dataclass(frozen=True, slots=True)
class Removal:
    """How it ended for one asset. `state`: ERASED or EXPIRED when nothing is left anywhere, else ERASING with the
    `reason`; None: the ledger does not know the asset, and no destination has a tombstone of it. `locked_until`:
    nothing more can be removed before."""

    asset_id: str
    state: AssetState | None
    reason: str = ""
    locked_until: datetime | None = None

    @property
    def is_done(self) -> bool:
        return self.state in (AssetState.ERASED, AssetState.EXPIRED)


@dataclass(slots=True)
class _Work:
    """One asset on its way. `failed`: why it goes no further, by destination."""

    seen: Seen
    tombstone: Tombstone
    interrupted: bool  # a worker has just lost its lease
    failed: dict[str, str] = field(default_factory=dict)
    named: dict[ObjectKey, StorageBackend] = field(default_factory=dict)  # folders, by a manifest at
    why: dict[str, Left] = field(default_factory=dict)
    locked_until: datetime | None = None

    @property
    def targets(self) -> Targets:
        records = [keys.end_record_beside(manifest) for manifest in self.tombstone.manifests]
        return Targets(self.tombstone.folders, [*self.tombstone.manifests, *records])


@dataclass(frozen=True, slots=True)
class _Run:
    shared: SharedFolders
    together: Together
    versioned: dict[str, bool] = field(default_factory=dict)

    def keeps_versions(self, store: StorageBackend, tombstone: ObjectKey) -> bool:
        if store.name not in self.versioned:
            self.versioned[store.name] = removal.keeps_versions(store, tombstone)
        return self.versioned[store.name]


class Eraser:
    """`clock`: the ledger's. `key_template`: of the asset's folders; a manifest's own folder counts as well."""

    def __init__(
        self,
        *,
        ledger: Schedule,
        destinations: Sequence[StorageBackend],
        clock: Callable[[], datetime],
        key_template: str = keys.DEFAULT_TEMPLATE,
        session_data: SessionData | None = None,
    ) -> None:
        self._ledger = ledger
        self._destinations = list(destinations)
        self._clock = clock
        self._template = key_template
        self._session_data = session_data

    def erase(
        self,
        asset_ids: Iterable[str],
        *,
        ticket: str,
        by: str = "",
        state: AssetState = AssetState.ERASED,
        on_progress: OnProgress = ignore_progress,
        total: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Removal]:
        """Erase the assets, a batch at a time, and yield how it ended for each. One that is erased already is done; one
        that the ledger does not know is looked up by its manifests and tombstones.
        `by`: who asked, for the history in the ledger alone. `state`: ERASED, or EXPIRED. `cancelled`: asked before
        each batch. Idempotent. Raises LedgerError; a destination that fails is a reason."""
        ids, done, run = iter(asset_ids), 0, self._new_run()
        while not cancelled() and (block := list(islice(ids, LOOKED_UP_AT_ONCE))):
            on_progress("erasing", done, total)
            stored = self._stored(block)
            for start in range(0, len(block), AT_ONCE):
                if cancelled():
                    break
                batch = block[start : start + AT_ONCE]
                begun = self._each(batch, lambda asset_id: self._begin(asset_id, ticket, by, state, stored))  # noqa: B023
                yield from self._finish(begun, run)
                done += len(batch)
                on_progress("erasing", done, total)

    def resume(
        self, asset_ids: Iterable[str], found: Callable[[str], Sequence[ObjectKey]] = lambda _: ()
    ) -> Iterator[Removal]:
        """Finish what was begun, by the tombstones and the ledger. `found`: manifests of an asset that came back.
        Idempotent. Raises as `erase`."""
        ids, run = iter(asset_ids), self._new_run()
        while batch := list(islice(ids, AT_ONCE)):
            begun = self._each(batch, lambda asset_id: self._begin_again(asset_id, found(asset_id)))
            yield from self._finish(begun, run)

    def un_erase(self, asset_id: str, *, by: str, why: str) -> Row | None:
        """Delete the tombstones and make the asset due again, if 100ms still has it: what was erased stays away.
        Idempotent; does nothing for an asset that was not erased. Raises StorageError, LedgerError."""
        row = self._ledger.get(asset_id)
        tombstones.delete(self._destinations, asset_id)  # first: a worker would meet it
        if row is None or row.state not in REMOVED_STATES:
            return row
        note_once(self._ledger, row, Decision(UN_ERASED, by, why, self._clock()))
        log.warning("asset_un_erased", asset_id=asset_id, by=by, why=why)
        return self._ledger.reopen(asset_id, un_erase=True)

    def is_anything_left(self, row: Row) -> bool:
        """Whether a destination lists objects of an asset that has no manifest, by the folder that the ledger knows;
        older versions do not count. One LIST for each destination. Raises StorageError."""
        prefixes = [f"{folder}/" for folder in self._folders(row)]
        return any(True for store in self._destinations for prefix in prefixes for _ in store.list(prefix))

    # -- inside: one batch ---------------------------------------------------------------------------------
    def _new_run(self) -> _Run:
        return _Run(SharedFolders(self._ledger, self._destinations, self._template), Together())

    def _finish(self, begun: Iterable[_Work | Removal], run: _Run) -> Iterator[Removal]:
        every = list(begun)
        works = [each for each in every if isinstance(each, _Work)]
        chunks = _chunks(works)
        self._each(works, self._tombstone)
        self._each(chunks, lambda chunk: self._find_shared(run, chunk))
        self._each(works, self._complete)
        going = [[work for work in chunk if not work.failed] for chunk in chunks]
        for store in self._destinations:
            self._each(going, lambda chunk: self._remove(run, store, chunk))  # noqa: B023 # called at once
        for store in self._destinations:
            self._remove_shared(store, [work for chunk in going for work in chunk])
        for store in self._destinations:
            self._each(going, lambda chunk: self._look(run, store, chunk))  # noqa: B023
        ends = self._each(works, lambda work: self._end(run, work))
        ended = {work.seen.asset_id: each for work, each in zip(works, ends, strict=True)}
        for one in every:
            yield one if isinstance(one, Removal) else ended[one.seen.asset_id]

    def _stored(self, batch: Sequence[str]) -> Mapping[str, Stored] | StorageError:
        """Return what the destinations have of assets that the ledger does not know, or why that cannot be told."""
        unknown = [each for each in batch if self._ledger.get(each) is None]
        try:
            found = find_stored(self._destinations, unknown, UNDATED_RETENTION, witnesses=())
            return {each.row.asset_id: each for each in found}
        except StorageError as error:
            return error

    def _begin(
        self,
        asset_id: str,
        ticket: str,
        by: str,
        state: AssetState,
        stored: Mapping[str, Stored] | StorageError,
    ) -> _Work | Removal:
        row = self._ledger.get(asset_id)
        now = self._clock()
        if row is None:
            return self._begin_unknown(asset_id, ticket, by, state, stored)
        if row.state in (AssetState.ERASED, AssetState.EXPIRED):
            return Removal(asset_id, row.state, row.reason or "")
        if by:
            note_once(self._ledger, row, Decision(ERASED, by, ticket, now))
        return self._work(row, Tombstone(asset_id, state, ticket, now, session_id=row.session_id))

    def _begin_unknown(
        self,
        asset_id: str,
        ticket: str,
        by: str,
        state: AssetState,
        stored: Mapping[str, Stored] | StorageError,
    ) -> _Work | Removal:
        unknown = "the ledger does not know it"
        if isinstance(stored, StorageError):
            return Removal(asset_id, None, f"{unknown}, and its manifest could not be looked up: {stored}")
        found = stored.get(asset_id)
        try:
            there = tombstones.find(self._destinations, asset_id)
        except StorageError as error:
            return Removal(asset_id, None, f"{unknown}, and its tombstone could not be read: {error}")
        if there is not None:
            if there.is_done and found is None:
                return Removal(asset_id, there.state, there.ticket)
            return self._begin_again(asset_id, found.manifests if found else ())
        if found is None:
            return Removal(asset_id, None, f"{unknown}, and no destination has a manifest of it")
        if found.problem:
            return Removal(
                asset_id,
                None,
                f"{unknown}, and its manifest does not say where its objects are ({found.problem}), so nothing was "
                "removed",
            )
        now = self._clock()
        tombstone = Tombstone(
            asset_id, state, ticket, now, session_id=found.row.session_id, manifests=found.manifests
        )
        work = self._work(found.row, tombstone)
        if by and (row := self._ledger.get(asset_id)) is not None:
            note_once(self._ledger, row, Decision(ERASED, by, ticket, now))
        return work

    def _begin_again(self, asset_id: str, found: Sequence[ObjectKey]) -> _Work | Removal:
        row = self._ledger.get(asset_id)
        try:
            tombstone = tombstones.find(self._destinations, asset_id)
        except StorageError as error:
            return Removal(asset_id, AssetState.ERASING, str(error))
        if tombstone is None:
            tombstone = tombstone_in(row) if row is not None else None
        if tombstone is None:
            return Removal(asset_id, None, "it was un-erased")
        tombstone = replace(
            tombstone, done_at=None, manifests=tuple(dict.fromkeys([*tombstone.manifests, *found]))
        )
        return self._work(row or _unknown(asset_id, self._clock()), tombstone)

    def _work(self, row: Row, tombstone: Tombstone) -> _Work:
        """Take the asset from whoever has it."""
        seen = as_known(row)
        manifest = keys.manifest_key(row.asset_id, row.created_at)
        tombstone = replace(
            tombstone,
            folders=tuple(dict.fromkeys([*tombstone.folders, *self._folders(row)])),
            manifests=tuple(dict.fromkeys([*tombstone.manifests, manifest])),
        )
        interrupted = _is_leased(row) or (
            row.state is AssetState.ERASING
            and _INTERRUPTED in (row.reason or "")
            and self._clock() - row.changed_at < WORKER_STOPS
        )
        reason = f"{tombstone.ticket}: {_INTERRUPTED if interrupted else 'not finished yet'}"
        self._ledger.remove(
            seen, Settlement(AssetState.ERASING, reason=reason, stored_bytes=row.stored_bytes)
        )
        return _Work(seen, tombstone, interrupted)

    def _folders(self, row: Row) -> list[ObjectKey]:
        """The folder that a copy without a manifest is in, as far as the ledger can tell."""
        if row.created_at is None and row.session_id is None and row.room_id is None:
            return []
        described = {
            "id": row.asset_id,
            "type": row.type,
            "room_id": row.room_id,
            "session_id": row.session_id,
            "created_at": row.created_at.astimezone(UTC).isoformat() if row.created_at else None,
        }
        return [keys.asset_folder(Asset.parse(described), self._template)]

    def _tombstone(self, work: _Work) -> None:
        """Write it everywhere, then read which folders the manifests name."""
        for store in self._destinations:
            try:
                there = tombstones.read(store, work.tombstone.asset_id)
                if there is not None:
                    work.tombstone = replace(work.tombstone.joined(there), done_at=None)
                tombstones.write(store, work.tombstone)
            except StorageError as error:
                work.failed[store.name] = f"no tombstone could be written ({error}), so nothing was removed"
        if work.failed:
            return
        for store in self._destinations:
            try:
                for manifest in work.tombstone.manifests:
                    if (folder := self._named(store, manifest)) is not None:
                        work.named.setdefault(folder, store)
            except StorageError as error:
                work.failed[store.name] = f"its manifest could not be read ({error}), so nothing was removed"
                return

    def _find_shared(self, run: _Run, works: Sequence[_Work]) -> None:
        """Refuse what would remove something of another asset."""

        def find(works: Sequence[_Work], together: Together) -> None:
            found = run.shared.find([(work.seen.asset_id, list(work.named)) for work in works], together)
            for work, other in zip(works, found, strict=True):
                if other is not None:
                    name = work.named[other.folder].name
                    work.failed[name] = (
                        f"its manifest at {name} names a folder with recordings of others, {other.folder} "
                        f"({other.asset}), so nothing was removed; correct or delete that manifest, and erase again"
                    )

        named = [work for work in works if work.named and not work.failed]
        for work, error in _together(find, named, run):
            work.failed[""] = f"a destination could not be listed ({error}), so nothing was removed"

    def _complete(self, work: _Work) -> None:
        """Add the folders that the manifests name to the tombstones."""
        known = work.tombstone
        if work.failed:
            return
        work.tombstone = replace(known, folders=tuple(dict.fromkeys([*known.folders, *work.named])))
        if work.tombstone == known:
            return
        for store in self._destinations:
            try:
                tombstones.write(store, work.tombstone)
            except StorageError as error:
                work.failed[store.name] = (
                    f"the tombstone could not be completed ({error}), so nothing was removed"
                )

    def _named(self, store: StorageBackend, manifest: ObjectKey) -> ObjectKey | None:
        try:
            found = find_manifest(store, manifest)
        except ObjectMissing:  # another process erases it, too
            return None
        if found is None or found.manifest is None:
            return None
        return keys.folder_of(found.manifest.asset_id, found.manifest.folder)

    def _remove(self, run: _Run, store: StorageBackend, works: Sequence[_Work]) -> None:
        def remove(works: Sequence[_Work], together: Together) -> None:
            whys = removal.remove_all(store, [work.targets for work in works], together)
            for work, why in zip(works, whys, strict=True):
                work.why[store.name] = why

        for work, error in _together(remove, works, run):
            work.failed[store.name] = f"it could not be removed: {error}"

    def _remove_shared(self, store: StorageBackend, works: Sequence[_Work]) -> None:
        """Remove what is in objects of several assets, once for the batch."""
        if not works:
            return
        try:
            removal.abort_uploads(store, [folder for work in works for folder in work.tombstone.folders])
            removal.forget_rows(store, [key for work in works for key in work.tombstone.manifests])
            if self._session_data is not None:
                erased = [work.tombstone.asset_id for work in works]
                sessions = {work.tombstone.session_id or work.seen.session_id for work in works}
                for session_id in sorted(each for each in sessions if each):
                    self._session_data.forget(store, session_id, erased)
        except StorageError as error:
            for work in works:
                work.failed.setdefault(store.name, f"uploads, tables or session data are left: {error}")

    def _look(self, run: _Run, store: StorageBackend, works: Sequence[_Work]) -> None:
        def look(works: Sequence[_Work], together: Together) -> None:
            whys = [work.why[store.name] for work in works]
            every = removal.all_left(store, [work.targets for work in works], whys, together)
            for work, left in zip(works, every, strict=True):
                if not left:
                    continue
                work.failed[store.name] = left.say(store)
                if left.waits_until is not None:
                    work.locked_until = max(work.locked_until or left.waits_until, left.waits_until)
                else:
                    work.failed[""] = ""  # something else than a lock: nothing to wait for

        removed = [work for work in works if store.name not in work.failed]
        for work, error in _together(look, removed, run):
            work.failed[store.name] = f"it could not be listed afterwards: {error}"

    def _end(self, run: _Run, work: _Work) -> Removal:
        asset_id, now = work.seen.asset_id, self._clock()
        if work.interrupted and not work.failed:
            work.failed["worker"] = _INTERRUPTED
        if not work.failed:
            try:
                for store in self._destinations:
                    tombstones.write(store, work.tombstone.done(now))
                    key = keys.tombstone_key(asset_id)
                    if run.keeps_versions(store, key):
                        removal.remove_older(store, key)  # they name its folders: room and session
            except StorageError as error:
                work.failed["tombstone"] = (
                    f"all is removed, and the tombstone could not be completed: {error}"
                )
        if not work.failed:
            how = Settlement(work.tombstone.state, reason=work.tombstone.ticket)
            self._ledger.remove(work.seen, how)
            event = "asset_erased" if work.tombstone.state is AssetState.ERASED else "asset_expired"
            log.info(event, asset_id=asset_id, ticket=work.tombstone.ticket)
            return Removal(asset_id, work.tombstone.state, work.tombstone.ticket)
        is_locked = "" not in work.failed and all(
            name in work.why and reason for name, reason in work.failed.items()
        )
        until = work.locked_until if is_locked else None
        reason = "; ".join(dict.fromkeys(each for each in work.failed.values() if each))
        if until is not None:
            reason = f"{_LOCKED}{until.astimezone(UTC).isoformat(timespec='seconds')}: {reason}"
            self._remember_lock(work, until)
        self._ledger.remove(
            work.seen, Settlement(AssetState.ERASING, reason=f"{work.tombstone.ticket}: {reason}")
        )
        log.warning("erasure_unfinished", asset_id=asset_id, reason=reason)
        return Removal(asset_id, AssetState.ERASING, reason, until)

    def _remember_lock(self, work: _Work, until: datetime) -> None:
        for store in self._destinations:
            try:
                tombstones.write(store, replace(work.tombstone, locked_until=until))
            except StorageError as error:
                log.warning("lock_not_remembered", store=store.name, reason=str(error))

    def _each(self, items: Sequence[A], act: Callable[[A], B]) -> list[B]:
        if len(items) < 2:
            return [act(each) for each in items]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="erase") as pool:
            return list(pool.map(act, items))


def tombstone_in(row: Row) -> Tombstone | None:
    """Return the tombstone that the ledger alone knows of; None for an asset that is not in REMOVED_STATES. For what
    was stopped before a tombstone was written, or whose tombstones somebody deleted."""
    if row.state not in REMOVED_STATES:
        return None
    asked = next((each for each in reversed(row.history) if each.what == ERASED), None)
    is_erased = asked is not None or row.state is AssetState.ERASED
    return Tombstone(
        row.asset_id,
        AssetState.ERASED if is_erased and row.state is not AssetState.EXPIRED else AssetState.EXPIRED,
        asked.why if asked and row.state is not AssetState.EXPIRED else (row.reason or "").partition(":")[0],
        asked.at if asked else row.changed_at,
        None if row.state is AssetState.ERASING else row.changed_at,
    )


def locked_until(row: Row) -> datetime | None:
    """Return until when a lock keeps an unfinished erasure from ending; None when that is not what it waits for."""
    reason = (row.reason or "").partition(": ")[2]
    if row.state is not AssetState.ERASING or not reason.startswith(_LOCKED):
        return None
    return parse_time(reason.removeprefix(_LOCKED).partition(": ")[0])


def enter_tombstone(ledger: Schedule, tombstone: Tombstone, now: datetime) -> Row:
    """Enter an asset by its tombstone, as the ledger knows it or with little more than its id. Of one that the ledger
    has as anything else something may have been stored since it was erased: it is to be removed. Raises LedgerError."""
    known = ledger.get(tombstone.asset_id)
    row = known or _unknown(tombstone.asset_id, now)
    if tombstone.is_done and (known is None or known.state in REMOVED_STATES):
        return ledger.remove(as_known(row), Settlement(tombstone.state, reason=tombstone.ticket))
    until = tombstone.locked_until
    if until is not None:
        rest = f"{_LOCKED}{until.astimezone(UTC).isoformat(timespec='seconds')}: a lock"
    else:
        rest = _INTERRUPTED if _is_leased(row) else "not finished yet"
    return ledger.remove(as_known(row), Settlement(AssetState.ERASING, reason=f"{tombstone.ticket}: {rest}"))


def _chunks(works: Sequence[_Work]) -> list[list[_Work]]:
    """One for each thread, of assets that lie beside each other."""
    beside = sorted(works, key=lambda work: (work.tombstone.folders, work.tombstone.manifests))
    size = max(1, -(-len(beside) // THREADS))
    return [beside[start : start + size] for start in range(0, len(beside), size)]


def _together(
    act: Callable[[Sequence[_Work], Together], None], works: Sequence[_Work], run: _Run
) -> Iterator[tuple[_Work, StorageError]]:
    """Act on all together, and when that fails on each alone, so that one that fails does not keep the others. Yield
    those, and why."""
    if not works:
        return
    try:
        act(works, run.together)
    except StorageError:
        for work in works:
            try:
                act([work], ALONE)
            except StorageError as error:
                yield work, error


def _is_leased(row: Row) -> bool:
    return row.state is AssetState.RUNNING or row.leased_until is not None


def _unknown(asset_id: str, now: datetime) -> Row:
    return Row(
        asset_id=asset_id,
        type=UNKNOWN_TYPE,
        state=AssetState.DISCOVERED,
        expires_at=UNDATED,
        first_seen_at=now,
        changed_at=now,
    )
