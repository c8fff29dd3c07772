"""Bring one asset to the destinations that lack it or hold it damaged.

    lease                  no attempt, no erasure and no other repair has the asset meanwhile
    look                   what each destination holds, by its manifest and a list of its objects
    copy                   object_copier.py: from a whole copy, verified while it passes
    commit                 the manifest, last, with this lease's fencing token (records.commit)
    release                what each destination holds now; a damaged asset that is whole everywhere is archived again

A copy that turns out damaged while it is read is marked so, another one is read, and it is repaired too. Where no copy
is whole, several damaged ones, or one with doubts, are combined if each object is whole in one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

import structlog

from archiver.core.attempt import doubts
from archiver.core.attempt.context import EngineFactory
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.upload_journal import LedgerUploadJournal
from archiver.core.deadlines import is_over
from archiver.core.errors import ArchiveError, AssetErased
from archiver.core.judging import as_known
from archiver.core.records import keys, tombstones
from archiver.core.records.commit import LACKING, commit, damaged_settlement, mark_damaged
from archiver.core.records.manifest import Manifest, find_manifest
from archiver.core.records.unreplaced import Versions, unreplaced_problems, versions
from archiver.core.records.verify import verify_contents, verify_listed
from archiver.core.replication.held_copies import (
    HeldCopy,
    folder_for,
    is_doubtful,
    is_surpassed,
    is_trusted,
    known_state,
    lists,
    look,
    may_lend,
    set_aside_doubted,
    shared_paths,
)
from archiver.core.replication.object_copier import (
    ObjectCopier,
    SourceDamaged,
    SourceFailed,
    TargetFailed,
    same_store,
)
from archiver.http import cancellation
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LeaseLost
from archiver.ledger.models import REMOVED_STATES, AssetState, CopyState, Row, Settlement
from archiver.transfer.errors import Stopped, TransferError
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import AccessDenied, StorageError

log = structlog.get_logger(__name__)

REPAIRED_STATES = frozenset(
    {AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.DAMAGED, AssetState.REJECTED}
)
"""States of which something may be stored. What is open is copied by attempts."""

READ_BYTES = 8 * 2**20


class Result(Enum):
    COPIED = "it was copied"
    NOTHING_TO_DO = "every destination that was asked for holds it whole"
    NOT_STORED = "nothing of it is stored, or it was erased"
    BUSY = "a worker has it"
    STOPPED = "the run ended before it was copied"
    FAILED = "it could not be copied everywhere"


@dataclass(frozen=True, slots=True)
class Repaired:
    """`failed`: why, by destination. `copied_bytes`: also of a copy that failed later."""

    asset_id: str
    result: Result
    copied_bytes: int = 0
    copied_objects: int = 0
    reason: str = ""
    failed: Mapping[str, Exception] = field(default_factory=dict)


@dataclass(slots=True)
class _Job:
    """One asset while it is repaired. `failed`: destinations that are left alone for the rest of it."""

    row: Row
    key: ObjectKey
    heartbeat: Heartbeat
    copies: list[HeldCopy]
    targets: Collection[str]
    preferred: str | None
    failed: dict[str, Exception] = field(default_factory=dict)
    found_damaged: set[str] = field(default_factory=set)  # and not repaired since
    distrusted: set[str] = field(default_factory=set)  # found damaged, and not read again
    copied_bytes: int = 0
    copied_objects: int = 0
    combined: bool = False  # or it was tried
    has_written: bool = False
    committed: bool = False

    def wanting(self) -> Iterator[HeldCopy]:
        for copy in self.copies:
            name = copy.store.name
            wanted = name in self.targets or name in self.found_damaged
            if wanted and name not in self.failed and copy.state in (CopyState.LACKING, CopyState.DAMAGED):
                yield copy

    def whole(self, target: StorageBackend) -> list[HeldCopy]:
        """Whole copies: without doubts first, then the preferred one, then those that the store itself copies."""
        found = [
            copy
            for copy in self.copies
            if copy.state is CopyState.WHOLE
            and copy.store.name not in self.failed
            and copy.store.name not in self.distrusted
        ]
        return sorted(
            found,
            key=lambda copy: (
                copy.manifest is None or not copy.manifest.trusted,
                copy.store.name != self.preferred,
                not same_store(copy.store, target),
            ),
        )


class Repairer:
    """Thread-safe: each call of `repair` works on its own asset."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        engine: EngineFactory,
        lease: timedelta,
        lease_renew: timedelta,
        clock: Callable[[], datetime],
        read_bytes: int = READ_BYTES,
    ) -> None:
        """`clock`: the ledger's. `read_bytes`: of one request to the copy that is read."""
        self._ledger = ledger
        self._destinations = list(destinations)
        self._engine = engine
        self._lease = lease
        self._lease_renew = lease_renew
        self._clock = clock
        self._read_bytes = read_bytes

    def repair(
        self,
        asset_id: str,
        holder: str,
        *,
        targets: Collection[str] | None = None,
        preferred: str | None = None,
        stop_requested: Callable[[], bool] = lambda: False,
        before_read: Callable[[int], None] = lambda _bytes: None,
    ) -> Repaired:
        """Copy the asset to `targets` (names; None: all destinations) as far as they lack it or hold it damaged, from
        `preferred` if that is whole, else from any other. `before_read`: called with the bytes of each read, may wait.

        Idempotent. A failure of a destination is in the result. Raises LedgerError, and whatever ends the process; the
        lease then expires, and the next repair resumes."""
        lease = self._ledger.lease_ended(asset_id, holder, self._lease)
        row = self._ledger.get(asset_id)
        if lease is None or row is None:
            return Repaired(asset_id, Result.BUSY if row is not None else Result.NOT_STORED)
        heartbeat = Heartbeat(
            self._ledger,
            lease,
            self._lease,
            renew_every=self._lease_renew,
            asset_type=row.type,
            bytes_total=row.stored_bytes or None,
            stop_requested=stop_requested,
        )
        names = [store.name for store in self._destinations]
        key = keys.manifest_key(asset_id, row.created_at)
        job = _Job(row, key, heartbeat, [], names if targets is None else targets, preferred)
        try:
            with heartbeat:
                if row.state in REPAIRED_STATES:
                    self._require_no_tombstone(asset_id)
                    job.copies = [
                        look(store, key, doubtful=is_doubtful(row, store.name), between=heartbeat.check)
                        for store in self._destinations
                    ]
                    set_aside_doubted(job.row, job.copies)
                    self._fill(job, before_read)
        except AssetErased as error:
            self._leave_to_reconcile(row, str(error))
            return _ended(job, Result.NOT_STORED, str(error))
        except LeaseLost as error:
            now = self._ledger.get(asset_id)
            if now is not None and now.state in REMOVED_STATES and job.has_written:
                self._leave_to_reconcile(row, f"{asset_id} was erased")
            return _ended(job, Result.BUSY, str(error))
        except Stopped as error:
            with suppress(LeaseLost):
                self._ledger.release(heartbeat.lease, keep_work=True)
            return _ended(job, Result.STOPPED, str(error))
        except (ArchiveError, TransferError) as error:  # outranked: somebody else decides
            with suppress(LeaseLost):
                self._ledger.release(heartbeat.lease)
            return _ended(job, Result.FAILED, str(error))
        try:
            return self._conclude(job)
        except LeaseLost as error:  # what was committed stays; a reconcile finds it
            return _ended(job, Result.COPIED if job.committed else Result.BUSY, str(error))

    def _require_no_tombstone(self, asset_id: str) -> None:
        """Raises AssetErased. A destination that does not answer is asked again before a manifest is written there."""
        for store in self._destinations:
            with suppress(StorageError):
                tombstones.check(store, asset_id)

    def _leave_to_reconcile(self, row: Row, why: str) -> None:
        """What was stored of an erased asset meanwhile is removed, also when the erasure has ended before."""
        reason = f"{why}, while it was replicated; reconcile removes what was stored"
        self._ledger.remove(as_known(row), Settlement(AssetState.ERASING, reason=reason))
        log.warning("erased_while_replicated", asset_id=row.asset_id)

    def _fill(self, job: _Job, before_read: Callable[[int], None]) -> None:
        """Until no whole copy and no destination that wants one are left."""
        while (target := next(job.wanting(), None)) is not None:
            source = next(iter(job.whole(target.store)), None)
            try:
                if source is not None and (job.combined or not is_surpassed(source, job.copies)):
                    self._copy(job, source, target, before_read)
                elif job.combined:
                    return
                else:
                    target = next((copy for copy in job.wanting() if is_trusted(copy)), target)
                    has_another, source = source is not None, None  # what fails is none of its faults
                    if self._combine(job, target, before_read):
                        set_aside_doubted(job.row, job.copies)
                    elif not has_another:
                        return
            except SourceDamaged as error:
                if source is None:
                    return
                self._found_damaged(job, source, error.problems)
            except SourceFailed as error:
                if source is None:
                    return
                job.failed[source.store.name] = error.error
            except TargetFailed as error:
                job.failed[target.store.name] = error.error

    def _copy(
        self, job: _Job, source: HeldCopy, target: HeldCopy, before_read: Callable[[int], None]
    ) -> None:
        listed = source.manifest
        assert listed is not None, "a whole copy has a manifest"
        manifest = self._new_manifest(job, listed, folder_for(listed, target.manifest), target)
        size_bytes = self._copy_objects(job, source, target, manifest, before_read)
        self._commit(job, target, manifest)
        log.warning(
            "copy_replicated",
            asset_id=job.row.asset_id,
            source=source.store.name,
            store=target.store.name,
            bytes=size_bytes,
        )

    def _new_manifest(self, job: _Job, listed: Manifest, folder: str, target: HeldCopy) -> Manifest:
        heartbeat = job.heartbeat
        if target.manifest is not None and target.manifest.rank >= heartbeat.lease.fence:
            heartbeat.outrank(target.manifest.rank)
        job.has_written = True
        return listed.model_copy(update={"fence": heartbeat.lease.fence, "folder": folder, "damage": None})

    def _copy_objects(
        self,
        job: _Job,
        source: HeldCopy,
        target: HeldCopy,
        manifest: Manifest,
        before_read: Callable[[int], None],
        paths: Collection[str] | None = None,
    ) -> int:
        """Return the bytes copied. Raises what ObjectCopier.copy raises."""
        heartbeat, listed = job.heartbeat, source.manifest
        assert listed is not None
        journal = LedgerUploadJournal(self._ledger, heartbeat.lease)
        before = _versions(target, manifest) if target.state is CopyState.DAMAGED else {}
        with cancellation.watched(heartbeat.check), self._engine(journal, heartbeat) as engine:
            copier = ObjectCopier(
                ledger=self._ledger,
                heartbeat=heartbeat,
                engine=engine,
                source=source.store,
                listed=listed,
                target=target.store,
                manifest=manifest,
                trusts_target=target.state is CopyState.LACKING,
                read_bytes=self._read_bytes,
                before_read=before_read,
                paths=paths,
            )
            try:
                copier.copy()
            finally:
                job.copied_bytes += copier.copied_bytes
                job.copied_objects += copier.copied_objects
        if before:
            self._require_replaced(job, target, manifest, paths, before)
        return copier.copied_bytes

    def _require_replaced(
        self,
        job: _Job,
        target: HeldCopy,
        manifest: Manifest,
        paths: Collection[str] | None,
        before: Versions,
    ) -> None:
        """Read back what a store with a damaged copy has not replaced: where it refuses to, a write counts as done if
        the checksum that the store keeps is right, and its bytes may not be. Raises TargetFailed."""
        try:
            problems = unreplaced_problems(target.store, manifest, before, paths, between=job.heartbeat.check)
        except StorageError as error:
            raise TargetFailed(error) from error
        if problems:
            raise TargetFailed(
                AccessDenied(f"{target.store.name} did not replace what is damaged there: {problems[0]}")
            )

    def _commit(self, job: _Job, target: HeldCopy, manifest: Manifest) -> None:
        """Raises TargetFailed."""
        job.heartbeat.confirm_if_possible()
        try:
            commit(target.store, job.key, manifest, target.manifest)
        except StorageError as error:
            raise TargetFailed(error) from error
        target.state, target.manifest, target.problems, job.committed = CopyState.WHOLE, manifest, (), True
        job.found_damaged.discard(target.store.name)

    def _combine(self, job: _Job, target: HeldCopy, before_read: Callable[[int], None]) -> bool:
        """Make `target` whole of copies that are damaged or have doubts, if each object of the latest manifest, without
        doubts if there is one, is whole in one of them, by its bytes. Reads all they have of it. Raises as `_copy`."""
        job.combined = True
        holding = [
            (copy, copy.manifest)
            for copy in job.copies
            if copy.manifest and copy.store.name not in job.failed and may_lend(copy)
        ]
        latest = max(
            (listed for _, listed in holding), key=lambda listed: (listed.trusted, listed.rank), default=None
        )
        if latest is None or len(holding) < 2:
            return False
        content = lists(latest)
        whole = {
            copy.store.name: self._whole_objects(
                job, copy, listed, shared_paths(listed, content), before_read
            )
            for copy, listed in holding
        }
        lacking = set(content)
        if lacking - set().union(*whole.values()):
            return False
        own = next((listed for copy, listed in holding if copy is target and lists(listed) == content), None)
        folder = own.folder if own is not None else folder_for(latest, target.manifest)
        manifest = self._new_manifest(job, own or latest, folder, target)
        if target.manifest is not None and target.manifest.folder == folder:
            lacking -= whole.get(target.store.name, set())
        for copy, _ in holding:
            if paths := lacking & whole[copy.store.name]:
                self._copy_objects(job, copy, target, manifest, before_read, paths)
                lacking -= paths
        self._commit(job, target, manifest)
        job.distrusted.discard(target.store.name)
        log.warning(
            "copies_combined", asset_id=job.row.asset_id, store=target.store.name, sources=sorted(whole)
        )
        return True

    def _whole_objects(
        self,
        job: _Job,
        copy: HeldCopy,
        listed: Manifest,
        paths: Collection[str],
        before_read: Callable[[int], None],
    ) -> set[str]:
        """Return those of `paths` whose objects are whole in a copy, by reading them; none if it cannot be read."""
        whole: set[str] = set()
        try:
            for item in listed.objects:
                if item.path not in paths:
                    continue
                before_read(item.size)
                if verify_contents(copy.store, listed, {item.path}, between=job.heartbeat.check).ok:
                    whole.add(item.path)
        except StorageError as error:
            job.failed[copy.store.name] = error
            return set()
        return whole

    def _found_damaged(self, job: _Job, source: HeldCopy, problems: Sequence[str]) -> None:
        name = source.store.name
        log.error("archive_damaged", store=name, key=job.key, problems=list(problems[:5]))
        source.state, source.problems = CopyState.DAMAGED, problems
        job.found_damaged.add(name)
        job.distrusted.add(name)
        try:  # the ledger has it too
            if mark_damaged(source.store, job.key, problems, of=source.manifest):
                marked = find_manifest(source.store, job.key)
                source.manifest = marked.manifest if marked else source.manifest
        except StorageError:
            with suppress(StorageError):
                source.hidden = (
                    source.manifest is not None and verify_listed(source.store, source.manifest).ok
                )

    # -- what it ends in -----------------------------------------------------------------------------------
    def _conclude(self, job: _Job) -> Repaired:
        """Release the lease with what the destinations hold now."""
        row, lease = job.row, job.heartbeat.lease
        if not job.copies:
            self._ledger.release(lease)
            return _ended(job, Result.NOT_STORED, f"it is {row.state}")
        states = {copy.store.name: copy.state or row.copies.get(copy.store.name) for copy in job.copies}
        copies = {name: state for name, state in states.items() if state is not None}
        is_whole = all(copy.state is CopyState.WHOLE for copy in job.copies)
        reopens = _is_not_whole(job) and not self._is_for_a_person(job)
        self._ledger.release(
            lease, copies, self._settlement(job, is_whole), keep_work=bool(job.failed) and not is_whole
        )
        if reopens:  # 100ms still has it
            self._ledger.reopen(row.asset_id)
        left = [copy for copy in job.copies if _is_wanted(job, copy)]
        if not left:
            return _ended(job, Result.COPIED if job.committed else Result.NOTHING_TO_DO, "")
        return _ended(job, Result.FAILED, _why(job, left))

    def _is_for_a_person(self, job: _Job) -> bool:
        """Whether no attempt can repair it: 100ms has deleted it, or an attempt, which goes by lists, would take a copy
        for whole whose damage is hidden."""
        return is_over(job.row, self._clock()) or any(
            copy.hidden and copy.state is CopyState.DAMAGED for copy in job.copies
        )

    def _settlement(self, job: _Job, is_whole: bool) -> Settlement | None:
        """The end state that follows; None: it stays as it is."""
        row = job.row
        one = next((c.manifest for c in job.copies if c.state is CopyState.WHOLE and c.manifest), None)
        if is_whole and one is not None and row.state is AssetState.DAMAGED:
            doubted = next((c.manifest for c in job.copies if c.manifest and not c.manifest.trusted), None)
            of = doubted or one
            return Settlement(
                AssetState.QUARANTINED if doubted else AssetState.ARCHIVED,
                reason=doubts.reason_kept(doubted) if doubted else None,
                stored_bytes=of.total_size,
                stored_objects=len(of.objects),
                warnings=of.warnings,
            )
        if _is_not_whole(job) and self._is_for_a_person(job) and row.state is not AssetState.REJECTED:
            problems = {
                copy.store.name: (LACKING,)
                if known_state(job.row, copy) is CopyState.LACKING
                else copy.problems
                for copy in job.copies
                if copy.state is not None
                or known_state(job.row, copy) in (CopyState.LACKING, CopyState.DAMAGED)
            }
            return damaged_settlement(
                row.asset_id, problems, stored_bytes=row.stored_bytes, stored_objects=row.stored_objects
            )
        return None


def _versions(target: HeldCopy, manifest: Manifest) -> Versions:
    """Raises TargetFailed."""
    try:
        return versions(target.store, manifest.folder)
    except StorageError as error:
        raise TargetFailed(error) from error


def _is_not_whole(job: _Job) -> bool:
    """Whether a copy was found to be damaged, or what is archived is known to be whole nowhere."""
    known = {known_state(job.row, copy) for copy in job.copies}
    return bool(job.found_damaged) or (
        job.row.state is AssetState.ARCHIVED and None not in known and CopyState.WHOLE not in known
    )


def _is_wanted(job: _Job, copy: HeldCopy) -> bool:
    name = copy.store.name
    return copy.state is not CopyState.WHOLE and (name in job.targets or name in job.found_damaged)


def _why(job: _Job, left: Sequence[HeldCopy]) -> str:
    if job.failed:
        return "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in job.failed.items())
    words = [f"{copy.store.name}: {copy.problems[0]}" for copy in left if copy.problems]
    is_whole_somewhere = any(copy.state is CopyState.WHOLE for copy in job.copies)
    return "; ".join(words if is_whole_somewhere and words else ["no destination holds it whole", *words])


def _ended(job: _Job, result: Result, reason: str) -> Repaired:
    return Repaired(job.row.asset_id, result, job.copied_bytes, job.copied_objects, reason, dict(job.failed))
