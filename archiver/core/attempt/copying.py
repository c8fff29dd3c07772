"""Copies the items of one asset to every destination: media first, playlists when the media is stored.

One bad object never costs the rest. What could not be had, or is not what it should be, becomes a doubt
(`core.attempt.doubts` decides what comes of it), and everything else is copied all the same.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NoReturn

import structlog

from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.tolerant_checks import Tolerant, TolerantStructure
from archiver.core.attempt.unconfirmed import Unconfirmed
from archiver.core.contents.base import Doubt, Item, Phase
from archiver.core.contents.source_failures import in_words
from archiver.core.errors import DestinationsFailed, WouldOverwrite
from archiver.core.machine import is_machine_fault
from archiver.core.records.manifest import Manifest, ManifestObject
from archiver.ledger.base import CopyJournal
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.models import Lease, StoredObject
from archiver.transfer.base import CopyRequest, CopyResult, Engine, KnownCopy, Source, UploadJournal
from archiver.transfer.checksums import crc32c
from archiver.transfer.errors import (
    ErrorPage,
    Preempted,
    RangesUnreliable,
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceGone,
    SourceMismatch,
    SourceNotAllowed,
    SourceUnavailable,
    StillEncoded,
    UnexpectedContent,
)
from archiver.transfer.source import as_sent, plain
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend, object_key
from storage_backends.errors import AccessDenied, StorageError

log = structlog.get_logger(__name__)

IN_FLIGHT = 256  # items submitted that have not arrived yet; the engine bounds bytes and connections itself
JOURNAL_EVERY = 24  # objects recorded in the ledger at once; fewer of them
JOURNAL_BYTES = 16 * 2**20  # when they are so large, or
JOURNAL_AFTER = timedelta(
    seconds=5
)  # when they arrived this long ago: what a worker that dies had copied in vain
_JOURNAL_AFTER_SECONDS = JOURNAL_AFTER.total_seconds()
SMALL_BYTES = 256 * 1024
GIVE_UP_AFTER = (
    50  # items that were refused or not answered: the source is down, and each has cost its retries
)

PERHAPS_MIXED = "what arrived over one connection may be mixed up"

TRIED_AGAIN = " yet and is tried again"
"""In the warning of an optional object that was busy: it is asked for again, apart from the rest of the asset."""

NO_LENGTH = "its server does not say how long it is, so nobody knows whether it is whole"
ROUNDED_BYTES = 1024
ROUNDS = 2  # in which one attempt asks again for what could not be had
MOST_RETRIED = 200  # items: with more of them the source is broken, and the next attempt asks again

EngineFactory = Callable[[UploadJournal, Heartbeat], Engine]


@dataclass(frozen=True, slots=True)
class Copied:
    """What is whole at every store that is not in `failed` (stores that could not take it all).

    `doubts`: what could not be had or is not what it should be. `worst`: the error to report when no media of the asset
    is among `objects`.
    """

    objects: tuple[ManifestObject, ...]
    failed: Mapping[str, StorageError]
    warnings: tuple[str, ...]
    doubts: tuple[Doubt, ...]
    has_media: bool
    worst: SourceError | None


@dataclass(slots=True)
class _Pending:
    item: Item
    future: Future[CopyResult]
    known: StoredObject | None
    tolerant: Tolerant | None
    again: bool = False  # submitted once more, to be read in another way
    fresh: bool = False  # submitted once more, for what came first is not confirmed
    noted: bool = False  # looked at by `_note_early`


class Copier:
    """One copy of one asset. Running it again after any failure resumes it: objects that the ledger knows as stored, or
    that a manifest of this folder lists, and that the destination still has with their size, are not read again while
    the source has the same length and strong ETag."""

    def __init__(
        self,
        ledger: CopyJournal,
        lease: Lease,
        engine: Engine,
        heartbeat: Heartbeat,
        *,
        version: str,
        exact: bool,
        folder: str,
        stores: Sequence[StorageBackend],
        manifests: Mapping[str, Manifest],
        keeping: bool = False,
        has_work: bool = True,
    ) -> None:
        """`exact`: an equal `version` names equal bytes. `manifests`: by store, the whole ones of this folder.
        `keeping`: store what is not what it should be, and say so in a doubt. `has_work`: whether the ledger may know
        of objects that an earlier attempt stored."""
        self._ledger = ledger
        self._lease = lease
        self._engine = engine
        self._heartbeat = heartbeat
        self._version = version
        self._exact = exact
        self._folder = folder
        self._stores = list(stores)
        self._manifests = manifests
        self._keeping = keeping
        self._has_work = has_work
        self._listed = {item.path: item for manifest in manifests.values() for item in manifest.objects}
        self._doubted = {path: item.doubt for path, item in self._listed.items() if item.doubt}
        self._failed_stores: dict[str, StorageError] = {}
        self._known = {store.name: self._known_objects(store) for store in stores}
        self._alive: list[StorageBackend] = []
        self._whole: dict[str, StoredObject] = {}  # what all of these have, the same
        self._objects: dict[str, ManifestObject] = {}
        self._taken: set[str] = set()
        self._media = 0  # objects that are not made by us
        self._failures = 0  # mandatory items that were refused or not answered
        self._failed_items: list[tuple[_Pending, SourceError]] = []
        self._worst: SourceError | None = None
        self._doubts: list[Doubt] = []
        self._warnings: list[str] = []
        self._unrecorded: list[StoredObject] = []
        self._unrecorded_bytes = 0
        self._recorded_at = time.monotonic()
        self._recorded_early: dict[str, StoredObject] = {}  # before it was confirmed; by path
        self._pending: deque[_Pending] = deque()
        self._ended: deque[Future[CopyResult]] = deque()  # filled by the engine's thread
        self._in_flight: dict[Future[CopyResult], _Pending] = {}
        self._unconfirmed: Unconfirmed[tuple[_Pending, CopyResult]] = Unconfirmed(engine)

    def copy(self, items: Iterable[Item]) -> Copied:
        """Raises SourceError when the source is down, DestinationsFailed when no store is left, WouldOverwrite when
        an item differs from what a manifest of this folder lists, or from what is there and may not be replaced;
        LeaseLost, Stopped, and whatever is no fault of the source."""
        try:
            self._without(self._failed_stores)
            phase = Phase.MEDIA
            for item in items:
                self._heartbeat.check()
                if self._heartbeat.should_yield():
                    raise self._heartbeat.preempted()
                if item.phase > phase:
                    self._finish_phase()
                    phase = item.phase
                self._start(item)
            self._finish_phase()
            self._leave_unrecorded_if_small()
        except Preempted:
            self._preempt()
        except (SourceError, DestinationsFailed, WouldOverwrite):
            self._keep_confirmed()
            raise
        finally:
            self._record()
        return Copied(
            objects=tuple(self._objects.values()),
            failed=self._failed_stores,
            warnings=tuple(self._warnings),
            doubts=tuple(self._doubts),
            has_media=self._media > 0,
            worst=self._worst,
        )

    @property
    def taken(self) -> AbstractSet[str]:
        """Paths that this copy has begun with, as it goes on: it may write no others."""
        return self._taken

    # -- one item ------------------------------------------------------------------------------------------
    def _start(self, item: Item) -> None:
        if item.path in self._taken:
            self._doubt(item, "two files of the asset have this path; the first is stored")
            if item.chunks is not None:
                item.chunks.skip()
            return
        self._taken.add(item.path)
        known = self._whole.get(item.path)
        if known is not None and self._is_the_same(item, known):
            if item.chunks is not None:
                item.chunks.skip()
            self._keep_known(item, known)
            self._heartbeat.object_done(copied=False)
            return
        tolerates = (
            self._keeping or item.path in self._doubted
        )  # what is kept already is read once to look at it
        tolerant = Tolerant(item.path) if tolerates and not item.optional else None
        if item.source is not None:
            self._submit(item, item.source, known, tolerant)
        else:
            request = self._guarded(item, self._request(item, known, tolerant))
            chunks = item.chunks if item.chunks is not None else [item.data or b""]
            try:
                future = self._engine.submit_chunks(chunks, request, self._alive)
            except SourceMismatch as error:
                if item.chunks is None:
                    raise
                self._failed(_Pending(item, Future(), None, tolerant), error)
                return
            self._await(_Pending(item, future, None, tolerant))
        while len(self._pending) > IN_FLIGHT or (self._pending and self._pending[0].future.done()):
            self._collect()
            self._judge_confirmed(self._unconfirmed.confirm_meanwhile())

    def _is_the_same(self, item: Item, known: StoredObject) -> bool:
        """Without asking the source: it is made by us, or comes out of one file whose version says so."""
        if item.data is not None:
            return (known.size_bytes, known.crc32c) == (len(item.data), crc32c(item.data))
        return item.chunks is not None and self._exact

    def _request(self, item: Item, known: StoredObject | None, tolerant: Tolerant | None) -> CopyRequest:
        structure = item.structure
        return CopyRequest(
            key=self._key(item.path),
            content_type=item.content_type,
            check=tolerant.check(item.check) if tolerant and item.check else item.check,
            size_bytes=item.size_bytes,
            crc32c=item.crc32c if item.data is None else crc32c(item.data),
            likely_bytes=item.api_size_bytes,
            structure=TolerantStructure(structure, tolerant) if tolerant and structure else structure,
            known=self._known_copy(item, known) if known else None,
        )

    def _known_copy(self, item: Item, known: StoredObject) -> KnownCopy:
        """Return the copy that the stores have. A weak ETag counts for what a manifest lists, or sources that have only
        weak ones would be read every day."""
        is_listed = item.path in self._listed
        return KnownCopy(known.size_bytes, known.crc32c, known.source_etag, weak_counts=is_listed)

    def _guarded(self, item: Item, request: CopyRequest) -> CopyRequest:
        """Nothing that a manifest lists is overwritten by something else. What it lists damaged is written again."""
        listed = self._listed.get(item.path)
        if listed is None:
            return request
        if item.data is not None and (len(item.data), request.crc32c) != (listed.size, listed.crc):
            raise WouldOverwrite(item.path)
        if request.size_bytes not in (None, listed.size) or request.crc32c not in (None, listed.crc):
            raise WouldOverwrite(item.path)
        return replace(request, size_bytes=listed.size, crc32c=listed.crc)

    def _submit(
        self,
        item: Item,
        source: Source,
        known: StoredObject | None,
        tolerant: Tolerant | None,
        *,
        again: bool = False,
        fresh: bool = False,
    ) -> None:
        request = self._guarded(item, self._request(item, known, tolerant))
        if fresh:
            request = replace(request, fresh=True)
        future = self._engine.submit(source, request, self._alive)
        self._await(_Pending(item, future, known, tolerant, again, fresh))

    def _await(self, pending: _Pending) -> None:
        self._pending.append(pending)
        self._in_flight[pending.future] = pending
        pending.future.add_done_callback(self._ended.append)
        self._look_ahead()

    def _result(self, pending: _Pending) -> CopyResult:
        """Wait until it has ended, recording what ends before it."""
        future = pending.future
        while not future.done():
            self._look_ahead()
            try:
                future.result(timeout=_JOURNAL_AFTER_SECONDS)
            except TimeoutError as error:
                if future.done() and future.exception() is error:
                    raise
                self._heartbeat.check()
        result = future.result()
        if not pending.noted:
            self._note_early(pending, result)
            self._record_if_due()
        return result

    def _collect(self) -> None:
        pending = self._pending.popleft()
        self._in_flight.pop(pending.future, None)
        item = pending.item
        try:
            result = self._result(pending)
        except SourceError as error:
            self._failed(pending, error)
            return
        if result.failed:
            self._raise_if_taken(item, result.failed)
            self._without(result.failed)
        if not pending.fresh:
            self._heartbeat.object_done()
        if item.source is None:
            self._take(pending, result)
        else:
            self._unconfirmed.add(self._key(item.path), result.size_bytes, (pending, result))

    def _raise_if_taken(self, item: Item, failed: Mapping[str, StorageError]) -> None:
        """Raise WouldOverwrite when other content is at the item's key and may not be replaced (retention, WORM): it
        would be refused at every attempt. A backend takes equal content there for success."""
        key = self._key(item.path)
        for store in self._alive:
            if isinstance(failed.get(store.name), AccessDenied):
                with suppress(StorageError):
                    if store.stat(key) is not None:
                        raise WouldOverwrite(item.path, f"what is at {store.name} and may not be replaced")

    def _take(self, pending: _Pending, result: CopyResult, doubt: str | None = None) -> None:
        """What arrived is this item's, but for a `doubt`."""
        item = pending.item
        if result.unchanged and pending.known is not None:
            doubted = self._keep_known(item, pending.known, doubt)
        else:
            doubted = self._add(item, pending, result, doubt)
        if not doubted:
            self._judge_length(item, result)

    def _add(self, item: Item, pending: _Pending, result: CopyResult, doubt: str | None) -> bool:
        """Return whether there is a doubt about it."""
        found = doubt or (pending.tolerant.found if pending.tolerant else None) or _perhaps_cut(item, result)
        stored = _stored(item, result)
        self._objects[item.path] = _manifest_object(item, stored, found)
        if item.data is not None:
            return False
        self._media += 0 if item.optional else 1
        if found:
            self._doubt(item, found)
            return True  # and not recorded: another attempt must not take it for right
        if self._recorded_early.pop(item.path, None) != stored:
            self._note(stored)
        self._record_if_due()
        return False

    def _note(self, stored: StoredObject) -> None:
        self._unrecorded.append(stored)
        self._unrecorded_bytes += stored.size_bytes

    def _record_if_due(self) -> None:
        many = len(self._unrecorded) >= JOURNAL_EVERY or self._unrecorded_bytes >= JOURNAL_BYTES
        if many or time.monotonic() - self._recorded_at >= _JOURNAL_AFTER_SECONDS:
            self._record()

    def _look_ahead(self) -> None:
        """Record what has ended behind one that goes on."""
        while self._ended:
            future = self._ended.popleft()
            pending = self._in_flight.pop(future, None)
            if pending is not None and future.exception() is None:
                self._note_early(pending, future.result())
        self._record_if_due()

    def _note_early(self, pending: _Pending, result: CopyResult) -> None:
        """Record an object before it is confirmed if its ETag is a digest, which no other content has. The next attempt
        requests it again and confirms that response like any other."""
        item = pending.item
        pending.noted = True
        if item.source is None or pending.fresh or result.unchanged or result.failed or result.source is None:
            return
        if not _DIGEST.fullmatch(result.source.strong_etag or ""):
            return
        if not (pending.tolerant and pending.tolerant.found) and not _perhaps_cut(item, result):
            stored = _stored(item, result)
            self._recorded_early[item.path] = stored
            self._note(stored)

    def _keep_known(self, item: Item, known: StoredObject, doubt: str | None = None) -> bool:
        """Whether there is a doubt about it: what the manifest says of it stays true while the source is unchanged."""
        doubt = self._doubted.get(item.path) or doubt
        self._objects[item.path] = _manifest_object(item, known, doubt)
        self._media += 0 if item.optional or item.data is not None else 1
        if doubt:
            self._doubt(item, doubt)
        return doubt is not None

    def _judge_length(self, item: Item, result: CopyResult) -> None:
        """The API's size is only its word: with a container that is complete, another one is a warning. Where nobody
        says a length, a clean cut looks like the end."""
        reported, source = item.api_size_bytes, result.source
        if reported and reported not in (result.size_bytes, source.encoded_bytes if source else None):
            words = _differs(result, reported)
            if item.structure is not None:
                self._warnings.append(f"{item.path}: {words}")
            else:
                self._doubt(item, words)
        length_known = (
            reported == result.size_bytes or item.structure is not None or item.size_bytes is not None
        )
        if source and not length_known and not source.framed and source.crc32c is None and source.md5 is None:
            self._doubt(item, NO_LENGTH)

    # -- what could not be had -----------------------------------------------------------------------------
    def _failed(self, pending: _Pending, error: SourceError) -> None:
        item = pending.item
        if is_machine_fault(error):
            raise error
        guarded = item.path in self._listed and type(error) is SourceMismatch
        if (source := self._in_another_way(pending, error)) is not None:
            self._submit(item, source, None, pending.tolerant, again=True, fresh=pending.fresh)
            return
        if guarded:
            raise WouldOverwrite(item.path) from error
        if isinstance(error, SourceForbidden | SourceUnavailable) and not item.optional:
            self._failures += 1
            if self._failures >= GIVE_UP_AFTER:
                raise error
        # tracebacks hold the buffers of their frames, and there may be thousands of errors
        error.__traceback__ = error.__context__ = error.__cause__ = None
        self._failed_items.append((pending, error))

    def _retry_failed(self) -> None:
        """Ask once more for what could not be had: of tens of thousands of files a few get a strange answer at every
        attempt. Not for the one file that an asset is, which the next attempt asks for on a fresh URL."""
        for _ in range(ROUNDS):
            failed = self._failed_items
            if not failed or len(failed) > MOST_RETRIED or (len(failed) == 1 and not self._media):
                return
            self._failed_items = []
            for pending, error in failed:
                item = pending.item
                if item.source is None or isinstance(
                    error, SourceUnavailable
                ):  # the engine has asked again already
                    self._failed_items.append((pending, error))
                    continue
                self._submit(item, item.source, pending.known, pending.tolerant, fresh=pending.fresh)
            self._settle()

    def _give_up(self, item: Item, error: SourceError) -> None:
        if item.optional:
            self._optional_failed(item, error)
            return
        self._worst = _worse(self._worst, error)
        if known := self._whole.get(item.path):
            self._keep_known(item, known)
            self._heartbeat.object_done(copied=False)
            self._doubt(item, f"what an earlier attempt stored is kept, for now {in_words(error)}")
            return
        self._doubt(item, in_words(error), missing=True, unready=not isinstance(error, _FINAL))

    def _in_another_way(self, pending: _Pending, error: SourceError) -> Source | None:
        """How else the object may be read: as one plain stream, or, to keep it, in the coding that it is sent in."""
        source = pending.item.source
        if source is None or pending.again:
            return None
        if isinstance(error, RangesUnreliable | SourceChanged):
            return plain(source)
        if isinstance(error, StillEncoded) and pending.tolerant is not None:
            pending.tolerant.remember(error)
            return as_sent(source)
        return None

    def _optional_failed(self, item: Item, error: SourceError) -> None:
        if known := self._whole.get(item.path):
            self._keep_known(item, known)
            self._heartbeat.object_done(copied=False)
            return
        words = f"{item.path} could not be had: {error}"
        if not isinstance(error, _FINAL) or isinstance(error, SourceForbidden | ErrorPage):
            words = f"{item.path} could not be had{TRIED_AGAIN}: {error}"
        self._warnings.append(words)

    def _doubt(self, item: Item, words: str, *, missing: bool = False, unready: bool = False) -> None:
        self._doubts.append(Doubt(words, item.path, missing=missing, unready=unready))

    # -- phases and stores ---------------------------------------------------------------------------------
    def _finish_phase(self) -> None:
        self._settle()
        self._retry_failed()
        failed, self._failed_items, self._failures = self._failed_items, [], 0
        for pending, error in failed:
            self._give_up(pending.item, error)

    def _drain(self) -> None:
        while self._pending:
            self._heartbeat.check()
            self._collect()

    def _settle(self) -> None:
        """Until nothing is under way and everything is confirmed, or in doubt."""
        self._drain()
        while self._unconfirmed:
            self._judge_confirmed(self._unconfirmed.confirm())
            self._drain()

    def _judge_confirmed(self, confirmed: Iterator[tuple[tuple[_Pending, CopyResult], str | None]]) -> None:
        """What is not confirmed is copied once more, over connections that bring nothing else."""
        copied_again = 0
        for (pending, result), why in confirmed:
            if why is None:
                self._take(pending, result)
            elif pending.fresh:
                self._take(pending, result, f"what arrived may be another file's: {why}")
            else:
                self._copy_again(pending, result)
                copied_again += 1
        if copied_again:
            log.warning(
                "copied_again", asset_id=self._lease.asset_id, objects=copied_again, reason=PERHAPS_MIXED
            )

    def _copy_again(self, pending: _Pending, result: CopyResult) -> None:
        item, known = pending.item, pending.known
        assert item.source is not None, "only what a source sent can be another's"
        if not result.unchanged:  # what was known to be there was written over
            known = None
            for records in (*self._known.values(), self._whole):
                records.pop(item.path, None)
        if self._recorded_early.pop(item.path, None) is not None:
            self._unrecorded = [one for one in self._unrecorded if one.path != item.path]
            self._note(StoredObject(item.path, size_bytes=_TAKEN_BACK, crc32c=0))
            self._record()
        tolerant = Tolerant(item.path) if pending.tolerant is not None else None
        self._submit(item, item.source, known, tolerant, fresh=True)

    def _preempt(self) -> NoReturn:
        """Raise Preempted once what is in flight has ended, at a part's end at the latest."""
        while self._pending:
            with suppress(Preempted):
                self._drain()
        self._keep_confirmed()
        raise self._heartbeat.preempted()

    def _keep_confirmed(self) -> None:
        """Record what arrived before the copy ends early, so that the next attempt need not copy it."""
        if self._alive and self._unconfirmed:
            for (pending, result), why in self._unconfirmed.confirm():
                if why is None:
                    self._take(pending, result)

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
            if all(_same(other.get(path), record) for other in others)
        }

    def _record(self) -> None:
        """Tell the ledger what is stored; a failed write costs a second copy of these objects at the worst."""
        self._recorded_at = time.monotonic()
        if not self._unrecorded:
            return
        for store in self._alive:
            try:
                self._ledger.add_stored(self._lease, store.name, self._version, self._unrecorded)
            except LedgerUnavailable as error:
                log.warning("stored_objects_not_recorded", asset_id=self._lease.asset_id, error=str(error))
        self._unrecorded, self._unrecorded_bytes = [], 0

    def _leave_unrecorded_if_small(self) -> None:
        """A copy that ended well is committed next. To copy one or two small files again, should that fail, costs less
        than to record each."""
        if self._doubts or self._failed_stores or len(self._objects) > 2:
            return
        if self._unrecorded_bytes <= SMALL_BYTES:
            self._unrecorded, self._unrecorded_bytes = [], 0

    def _known_objects(self, store: StorageBackend) -> dict[str, StoredObject]:
        """Return what an earlier attempt stored and the destination still lists with its size; one LIST."""
        known: dict[str, StoredObject] = {}
        manifest = self._manifests.get(store.name)
        if manifest is not None and not manifest.damage:
            known.update({item.path: _stored_object(item) for item in manifest.objects})
        if self._has_work:
            known.update(self._ledger.stored_objects(self._lease.asset_id, store.name, self._version))
        if not known:
            return {}
        prefix = f"{self._folder}/"
        try:
            listed = {info.key[len(prefix) :]: info for info in store.list(prefix)}
        except StorageError as error:
            self._failed_stores[store.name] = error
            return {}
        return {path: record for path, record in known.items() if _holds(listed.get(path), record)}

    def _key(self, path: str) -> ObjectKey:
        return object_key(f"{self._folder}/{path}")


_TAKEN_BACK = -1  # the size of no object: a record with it is as good as none

_DIGEST = re.compile(r'"[0-9a-fA-F]{32}(-[0-9]{1,5})?"')
"""An ETag of S3, and of what passes it on: the MD5 of the content, or of its parts' MD5s."""

_FINAL = (SourceGone, ErrorPage, UnexpectedContent, SourceForbidden, SourceNotAllowed)
"""What the source says of an object for good, if it says so again and again."""


def _differs(result: CopyResult, reported: int) -> str:
    return f"it has {result.size_bytes} bytes, the API says {reported}"


def _stored(item: Item, result: CopyResult) -> StoredObject:
    return StoredObject(
        path=item.path,
        size_bytes=result.size_bytes,
        crc32c=result.crc32c,
        content_type=item.content_type,
        source_etag=result.source.etag if result.source else None,
    )


def _perhaps_cut(item: Item, result: CopyResult) -> str | None:
    """Of a container that does not say where it ends: why it may have been cut all the same. An API that rounds is no
    reason."""
    reported, source = item.api_size_bytes or 0, result.source
    if item.structure is None or item.structure.verifies_end or reported == result.size_bytes:
        return None
    if reported - result.size_bytes > max(ROUNDED_BYTES, reported // 100):
        return _differs(result, reported)
    if source and not source.framed and source.crc32c is None and source.md5 is None:
        return NO_LENGTH
    return None


def _holds(info: ObjectInfo | None, record: StoredObject) -> bool:
    """Return whether the store still has what was stored, by its list."""
    if info is None or info.size_bytes != record.size_bytes:
        return False
    return info.crc32c is None or info.crc32c == record.crc32c


def _same(one: StoredObject | None, other: StoredObject) -> bool:
    """The same bytes, read from the same source; the rest may be told differently by ledger and manifest."""
    return one is not None and (one.size_bytes, one.crc32c, one.source_etag) == (
        other.size_bytes,
        other.crc32c,
        other.source_etag,
    )


def _worse(one: SourceError | None, other: SourceError) -> SourceError:
    """Return the error to report: one that is worth waiting for comes first."""
    for kind in (SourceUnavailable, SourceForbidden, SourceMismatch):
        for error in (one, other):
            if isinstance(error, kind):
                return error
    return one or other


def _stored_object(item: ManifestObject) -> StoredObject:
    return StoredObject(item.path, item.size, item.crc, item.content_type, item.source_etag)


def _manifest_object(item: Item, stored: StoredObject, doubt: str | None = None) -> ManifestObject:
    return ManifestObject(
        path=item.path,
        size=stored.size_bytes,
        crc32c=f"{stored.crc32c:08x}",
        content_type=item.content_type,
        source_etag=stored.source_etag,
        rewritten=item.rewritten,
        doubt=doubt,
    )
