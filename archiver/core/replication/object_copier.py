"""Copy the objects of one manifest from one destination to another.

Every byte is compared with the manifest: while it passes, or, where the store itself copies, by the checksum that the
store tells of the copy, or by reading the copy back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import structlog

from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.destinations.guarded import is_still_there
from archiver.core.machine import is_machine_fault
from archiver.core.records.labels import labels_in
from archiver.core.records.manifest import Manifest, ManifestObject
from archiver.core.records.verify import verify_contents
from archiver.ledger.base import CopyJournal
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.models import StoredObject
from archiver.transfer.base import CopyRequest, CopyResult, Engine
from archiver.transfer.errors import SourceError, SourceGone, SourceMismatch
from archiver.transfer.store_source import StoreSource
from storage_backends.base import ObjectInfo, ObjectSpec, StorageBackend
from storage_backends.errors import ChecksumRejected, StorageError, UploadGone
from storage_backends.optional import CopiesObjects

log = structlog.get_logger(__name__)

IN_FLIGHT = 128  # objects; the engine bounds bytes and connections itself
COPIED_AT_ONCE = 16  # objects that the store copies by itself
RECORD_EVERY = 24  # objects that a killed process may have copied in vain
_PLAYLISTS = (".m3u8", ".mpd")


class SourceDamaged(Exception):
    """The copy that was read is not whole; `problems` as in `records.verify`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class SourceFailed(Exception):
    """The copy could not be read; nothing is known of it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class TargetFailed(Exception):
    """The destination did not take it."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(str(error))
        self.error = error


class _NotCopied(Exception):
    """The store does not copy this object by itself: its bytes are to pass here."""


class ObjectCopier:
    """One copy, from `source` by its manifest `listed` to `target` as `manifest` lists it: the same objects, perhaps in
    another folder. Resumes: objects that an earlier copy of the same manifest recorded in the ledger, and that the
    target still lists with their size, are not copied again."""

    def __init__(
        self,
        *,
        ledger: CopyJournal,
        heartbeat: Heartbeat,
        engine: Engine,
        source: StorageBackend,
        listed: Manifest,
        target: StorageBackend,
        manifest: Manifest,
        trusts_target: bool,
        read_bytes: int,
        before_read: Callable[[int], None],
        paths: Collection[str] | None = None,
    ) -> None:
        """`paths`: of the objects to copy; None: all. `trusts_target`: objects that are there with the checksum of the
        manifest are not copied either; not when the target's copy was found damaged, for a store may tell the checksum
        of what it was sent. `read_bytes`: of one request to the source. `before_read`: called with the bytes of each,
        and may wait."""
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._engine = engine
        self._source = source
        self._listed = listed
        self._target = target
        self._manifest = manifest
        self._trusts_target = trusts_target
        self._read_bytes = read_bytes
        self._before_read = before_read
        self._objects = [item for item in manifest.objects if paths is None or item.path in paths]
        self._version = f"replica:{manifest.folder}:{manifest.version}:{listed.archived_at.isoformat()}"
        self._copies_by_itself = _copier(source, target)
        self._unrecorded: list[StoredObject] = []
        self._resumed: set[str] = set()  # paths of objects of which an earlier run may have stored parts
        self.copied_bytes = self.copied_objects = 0

    def copy(self) -> None:
        """Raises SourceDamaged, SourceFailed, TargetFailed, LeaseLost, Stopped."""
        held = self._held()
        pending: deque[tuple[ManifestObject, Future[Any]]] = deque()
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(COPIED_AT_ONCE, thread_name_prefix="replicate"))
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            try:
                for phase in _phases(self._objects):
                    for item in phase:
                        self._heartbeat.check()
                        if item.path in held:
                            self._heartbeat.object_done(copied=False)
                            continue
                        pending.append((item, self._submit(item, pool)))
                        while len(pending) > IN_FLIGHT or (pending and pending[0][1].done()):
                            self._collect(*pending.popleft())
                    while pending:
                        self._heartbeat.check()
                        self._collect(*pending.popleft())
            finally:
                self._record()

    # -- one object ----------------------------------------------------------------------------------------
    def _submit(self, item: ManifestObject, pool: ThreadPoolExecutor) -> Future[Any]:
        if self._copies_by_itself is not None:
            return pool.submit(self._copy_within, self._copies_by_itself, item)
        return self._send(item)

    def _send(self, item: ManifestObject) -> Future[CopyResult]:
        has_parts = item.size > self._read_bytes
        if has_parts and self._is_begun(item):
            self._resumed.add(item.path)
        source = StoreSource(
            self._source,
            self._listed.key_of(item),
            size_bytes=item.size,
            resumable=has_parts,
            read_bytes=self._read_bytes,
            before_read=self._before_read,
        )
        request = CopyRequest(
            key=self._manifest.key_of(item),
            content_type=item.content_type,
            size_bytes=item.size,
            crc32c=item.crc,
            labels=labels_in(self._manifest),
        )
        return self._engine.submit(source, request, [self._target])

    def _is_begun(self, item: ManifestObject) -> bool:
        asset_id, key = self._heartbeat.lease.asset_id, self._manifest.key_of(item)
        try:
            return self._ledger.load_upload(asset_id, self._target.name, key) is not None
        except LedgerUnavailable:
            return False

    def _copy_within(self, copier: CopiesObjects, item: ManifestObject) -> None:
        """Let the store copy it, and verify the copy. Raises _NotCopied when it does not, or the copy differs: then the
        bytes show why."""
        key = self._manifest.key_of(item)
        labels = labels_in(self._manifest)
        spec = ObjectSpec(key, item.content_type, item.size, media=True, labels=labels)
        place = self._source.place()  # type: ignore[attr-defined] # `_copier` has seen it
        try:
            info = copier.copy_from(
                place, self._listed.key_of(item), spec, item.crc, between=self._heartbeat.check
            )
            if not self._is_right(item, info):
                raise _NotCopied(f"the copy of {item.path} differs from the manifest")
        except StorageError as error:
            raise _NotCopied(str(error)) from error
        self._heartbeat.moved(key, item.size)

    def _is_right(self, item: ManifestObject, info: ObjectInfo) -> bool:
        if info.size_bytes != item.size or info.crc32c not in (None, item.crc):
            return False
        return info.crc32c is not None or verify_contents(self._target, self._manifest, {item.path}).ok

    def _collect(self, item: ManifestObject, future: Future[Any]) -> None:
        try:
            result = self._result(future)
        except _NotCopied as error:
            if self._copies_by_itself is not None:
                log.info("store_does_not_copy", store=self._target.name, reason=str(error))
            self._copies_by_itself = None  # the rest passes here too
            self._collect(item, self._send(item))
            return
        except SourceError as error:
            reason = self._reason(item, error)
            is_readable = isinstance(error, SourceMismatch) and isinstance(reason, SourceFailed)
            if is_readable and self._is_sent_whole(item, error):
                return
            raise reason from error
        if isinstance(result, CopyResult) and result.failed:
            failure = result.failed[self._target.name]
            if isinstance(failure, ChecksumRejected | UploadGone) and self._is_sent_whole(item, failure):
                return
            raise TargetFailed(failure)
        self._heartbeat.object_done()
        self.copied_bytes += item.size
        self.copied_objects += 1
        self._unrecorded.append(StoredObject(item.path, item.size, item.crc, item.content_type))
        if len(self._unrecorded) >= RECORD_EVERY:
            self._record()

    def _is_sent_whole(self, item: ManifestObject, error: Exception) -> bool:
        """Send an object once more, from its beginning, if it was put together of parts of an earlier run: one of these
        may be bad, and the engine has discarded them. Raises as `_collect`."""
        if item.path not in self._resumed:
            return False
        log.warning(
            "kept_parts_discarded",
            asset_id=self._heartbeat.lease.asset_id,
            store=self._target.name,
            key=self._manifest.key_of(item),
            reason=str(error),
        )
        future = self._send(item)
        self._resumed.discard(item.path)
        self._collect(item, future)
        return True

    def _result(self, future: Future[Any]) -> Any:
        while not future.done():
            self._heartbeat.check()
            try:
                return future.result(timeout=1.0)
            except TimeoutError as error:
                if future.done() and future.exception() is error:
                    raise
        return future.result()

    def _reason(self, item: ManifestObject, error: SourceError) -> Exception:
        """Tell a damaged copy from one that could not be read: it is read once more, for one bad answer is no
        damage."""
        if is_machine_fault(error):
            return error
        if not isinstance(error, SourceGone | SourceMismatch):
            return SourceFailed(error)
        try:
            problems = verify_contents(
                self._source, self._listed, {item.path}, between=self._heartbeat.check
            ).problems
        except StorageError as unread:
            return SourceFailed(unread)
        return SourceDamaged(problems) if problems else SourceFailed(error)

    # -- what is there already -----------------------------------------------------------------------------
    def _held(self) -> set[str]:
        """Return paths of the target that need no copy. One LIST, and a HEAD for each object that may be right."""
        lease = self._heartbeat.lease
        try:
            recorded = self._ledger.stored_objects(lease.asset_id, self._target.name, self._version)
        except LedgerUnavailable:
            recorded = {}
        if not recorded and not self._trusts_target:
            return set()
        prefix = f"{self._manifest.folder}/"
        held: set[str] = set()
        try:
            sizes = {info.key[len(prefix) :]: info.size_bytes for info in self._target.list(prefix)}
            for item in self._objects:
                if sizes.get(item.path) != item.size:
                    continue
                record = recorded.get(item.path)
                if record is not None and (record.size_bytes, record.crc32c) == (item.size, item.crc):
                    held.add(item.path)
                elif self._trusts_target:
                    self._heartbeat.check()
                    info = self._target.stat(self._manifest.key_of(item))
                    if info is not None and (info.size_bytes, info.crc32c) == (item.size, item.crc):
                        held.add(item.path)
        except StorageError as error:
            raise TargetFailed(error) from error
        return held

    def _record(self) -> None:
        """Tell the ledger what is stored; a failed write costs a second copy of these objects at the worst."""
        if not self._unrecorded:
            return
        if not is_still_there(self._target):  # what was written lies below the mount point
            self._unrecorded = []
            return
        try:
            self._ledger.add_stored(self._heartbeat.lease, self._target.name, self._version, self._unrecorded)
        except LedgerUnavailable as error:
            log.warning(
                "stored_objects_not_recorded", asset_id=self._heartbeat.lease.asset_id, error=str(error)
            )
        self._unrecorded = []


def same_store(one: StorageBackend, other: StorageBackend) -> bool:
    """Return whether the store can copy between the two by itself. Sends no request."""
    return _copier(one, other) is not None


def _copier(source: StorageBackend, target: StorageBackend) -> CopiesObjects | None:
    copier: Any = target
    if not hasattr(source, "place") or not hasattr(target, "copy_from"):
        return None
    try:
        return copier if source.place().store == copier.place().store else None
    except StorageError:
        return None


def _phases(objects: Sequence[ManifestObject]) -> tuple[list[ManifestObject], list[ManifestObject]]:
    """Media, and the playlists that name it, which are stored last."""
    playlists = [item for item in objects if item.path.endswith(_PLAYLISTS)]
    return [item for item in objects if not item.path.endswith(_PLAYLISTS)], playlists
