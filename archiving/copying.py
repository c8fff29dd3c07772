"""Copies the items of one asset to every destination: media first, playlists when the media is whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from archiving.contents.base import Item, Phase
from archiving.errors import DestinationsFailed, IncompleteContents
from archiving.heartbeat import Heartbeat
from archiving.manifest import ManifestObject
from ledger.base import Lease, Ledger, StoredObject
from ledger.errors import LedgerUnavailable
from storage_backends.base import StorageBackend, object_key
from storage_backends.errors import StorageError
from transfer.base import CopyRequest, CopyResult, Engine, UploadJournal
from transfer.checksums import crc32c
from transfer.errors import SourceError, SourceForbidden, SourceGone, SourceMismatch, SourceUnavailable

log = structlog.get_logger(__name__)

IN_FLIGHT = 256  # items submitted and not yet recorded; the engine bounds bytes and connections itself
JOURNAL_EVERY = 200  # objects recorded in the ledger at once; fewer of them
JOURNAL_BYTES = 64 * 2**20  # when they are so large: what a worker that dies had copied in vain
FAILURES_SHOWN = 5
GIVE_UP_AFTER = 50  # failed items: the source is broken, and each failure has cost its retries

EngineFactory = Callable[[UploadJournal, Heartbeat], Engine]


@dataclass(frozen=True, slots=True)
class Copied:
    """What is whole at every store that is not in `failed`. `failed`: stores that could not take it all."""

    objects: tuple[ManifestObject, ...]
    failed: Mapping[str, StorageError]
    warnings: tuple[str, ...]


class Copier:
    """One copy of one asset. Running it again after any failure goes on where it stopped: objects the ledger
    knows as stored, and the destination lists with their size, are not fetched again."""

    def __init__(
        self,
        ledger: Ledger,
        lease: Lease,
        engine: Engine,
        heartbeat: Heartbeat,
        *,
        version: str,
        folder: str,
        stores: Sequence[StorageBackend],
    ) -> None:
        self._ledger = ledger
        self._lease = lease
        self._engine = engine
        self._heartbeat = heartbeat
        self._version = version
        self._folder = folder
        self._stores = list(stores)
        self._failed_stores: dict[str, StorageError] = {}
        self._known = {store.name: self._known_objects(store) for store in stores}
        self._alive: list[StorageBackend] = []
        self._whole: Mapping[str, StoredObject] = {}  # what all of these have, the same
        self._objects: dict[str, ManifestObject] = {}
        self._failed_items: list[tuple[Item, SourceError]] = []
        self._warnings: list[str] = []
        self._unrecorded: list[StoredObject] = []
        self._unrecorded_bytes = 0
        self._pending: deque[tuple[Item, Future[CopyResult]]] = deque()

    def copy(self, items: Iterable[Item]) -> Copied:
        """Raises the worst SourceError or IncompleteContents when an item that belongs to the asset could not
        be had (the others were copied all the same), DestinationsFailed when no store is left; LeaseLost,
        Stopped."""
        try:
            self._without(self._failed_stores)
            phase = Phase.MEDIA
            for item in items:
                self._heartbeat.check()
                if item.phase > phase:
                    self._finish_phase()
                    phase = item.phase
                self._start(item)
            self._finish_phase()
        finally:
            self._record()
        return Copied(tuple(self._objects.values()), self._failed_stores, tuple(self._warnings))

    def _start(self, item: Item) -> None:
        if item.path in self._objects:
            raise IncompleteContents(f"two items of the asset want the path {item.path!r}")
        if item.data is None and (whole := self._whole.get(item.path)):
            if item.chunks is not None:
                item.chunks.skip()
            self._objects[item.path] = _manifest_object(item, whole)
            self._heartbeat.object_done()
            return
        request = CopyRequest(
            key=object_key(f"{self._folder}/{item.path}"),
            content_type=item.content_type,
            check=item.check,
            size_bytes=item.size_bytes,
            crc32c=item.crc32c if item.data is None else crc32c(item.data),
        )
        if item.source is not None:
            future = self._engine.submit(item.source, request, self._alive)
        else:
            chunks = item.chunks if item.chunks is not None else [item.data or b""]
            future = self._engine.submit_chunks(chunks, request, self._alive)
        self._pending.append((item, future))
        while len(self._pending) > IN_FLIGHT or (self._pending and self._pending[0][1].done()):
            self._collect()

    def _collect(self) -> None:
        item, future = self._pending.popleft()
        try:
            result = future.result()
        except SourceError as error:
            if item.optional:
                self._warnings.append(f"{item.path} could not be had: {error}")
                return
            self._failed_items.append((item, error))
            if len(self._failed_items) >= GIVE_UP_AFTER or isinstance(error, SourceForbidden):
                self._raise_failures()
            return
        if result.failed:
            self._without(result.failed)
        stored = StoredObject(
            path=item.path,
            size_bytes=result.size_bytes,
            crc32c=result.crc32c,
            content_type=item.content_type,
            source_etag=result.source.etag if result.source else None,
        )
        self._objects[item.path] = _manifest_object(item, stored)
        self._heartbeat.object_done()
        if item.data is None:
            self._unrecorded.append(stored)
            self._unrecorded_bytes += stored.size_bytes
            if len(self._unrecorded) >= JOURNAL_EVERY or self._unrecorded_bytes >= JOURNAL_BYTES:
                self._record()

    def _finish_phase(self) -> None:
        while self._pending:
            self._heartbeat.check()
            self._collect()
        self._raise_failures()

    def _without(self, failed: Mapping[str, StorageError]) -> None:
        """Go on without these stores."""
        self._failed_stores.update(failed)
        self._alive = [store for store in self._stores if store.name not in self._failed_stores]
        if not self._alive:
            raise DestinationsFailed(self._failed_stores)
        first, *others = [self._known[store.name] for store in self._alive]
        self._whole = {
            path: record
            for path, record in first.items()
            if all(other.get(path) == record for other in others)
        }

    def _raise_failures(self) -> None:
        """What is worth waiting for comes first: only when nothing else ails is the asset called incomplete."""
        if not self._failed_items:
            return
        errors = [error for _, error in self._failed_items]
        for kind in (SourceUnavailable, SourceForbidden, SourceMismatch):
            if worst := next((error for error in errors if isinstance(error, kind)), None):
                raise worst
        if len(self._objects) == 0 and len(errors) == 1:
            raise errors[0]  # the asset is this one file
        shown = "; ".join(f"{item.path} ({error})" for item, error in self._failed_items[:FAILURES_SHOWN])
        gone = sum(isinstance(error, SourceGone) for error in errors)
        raise IncompleteContents(
            f"{len(errors)} objects could not be had, {gone} of them missing at the source: {shown}"
        )

    def _record(self) -> None:
        """Tell the ledger what is stored; a failed write costs a second copy of these objects at the worst."""
        if not self._unrecorded:
            return
        for store in self._alive:
            try:
                self._ledger.add_stored(self._lease, store.name, self._version, self._unrecorded)
            except LedgerUnavailable as error:
                log.warning("stored_objects_not_recorded", asset_id=self._lease.asset_id, error=str(error))
        self._unrecorded, self._unrecorded_bytes = [], 0

    def _known_objects(self, store: StorageBackend) -> Mapping[str, StoredObject]:
        """What an earlier attempt stored and the destination still lists with its size; one LIST."""
        known = self._ledger.stored_objects(self._lease.asset_id, store.name, self._version)
        if not known:
            return {}
        prefix = f"{self._folder}/"
        try:
            listed = {info.key[len(prefix) :]: info.size_bytes for info in store.list(prefix)}
        except StorageError as error:
            self._failed_stores[store.name] = error
            return {}
        return {path: record for path, record in known.items() if listed.get(path) == record.size_bytes}


def _manifest_object(item: Item, stored: StoredObject) -> ManifestObject:
    return ManifestObject(
        path=item.path,
        size=stored.size_bytes,
        crc32c=f"{stored.crc32c:08x}",
        content_type=item.content_type,
        source_etag=stored.source_etag,
        rewritten=item.rewritten,
    )
