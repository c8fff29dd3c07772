"""Copies the items of one asset to every destination: media first, playlists when the media is stored.

One bad object never costs the rest. What could not be fetched, or is not what it should be, becomes a doubt
(`core.attempt.doubts` decides what comes of it), and everything else is copied all the same.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn

import structlog

from archiver.core.attempt.copied import Copied, CopiedSoFar, perhaps_cut
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.item_requests import ItemRequests
from archiver.core.attempt.remaining_stores import RemainingStores
from archiver.core.attempt.stored_journal import JOURNAL_AFTER_SECONDS, StoredJournal
from archiver.core.attempt.tolerant_checks import Tolerant
from archiver.core.attempt.unconfirmed import Unconfirmed
from archiver.core.contents.base import Item, Phase
from archiver.core.errors import DestinationsFailed, WouldOverwrite
from archiver.core.machine import is_machine_fault
from archiver.core.records.manifest import Manifest
from archiver.ledger.base import CopyJournal
from archiver.ledger.models import Lease, StoredObject
from archiver.transfer.base import CopyResult, Engine, Source
from archiver.transfer.checksums import crc32c
from archiver.transfer.errors import (
    Preempted,
    RangesUnreliable,
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceMismatch,
    SourceUnavailable,
    StillEncoded,
)
from archiver.transfer.source import as_sent, plain
from storage_backends.base import StorageBackend
from storage_backends.errors import AccessDenied, StorageError

log = structlog.get_logger(__name__)

IN_FLIGHT = 256  # items submitted that have not arrived yet; the engine bounds bytes and connections itself
GIVE_UP_AFTER = (
    50  # items that were refused or not answered: the source is down, and each has cost its retries
)

PERHAPS_MIXED = "what arrived over one connection may be mixed up"

ROUNDS = 2  # in which one attempt asks again for what could not be fetched
MOST_RETRIED = 200  # items: with more of them the source is broken, and the next attempt asks again

_DIGEST = re.compile(r'"[0-9a-fA-F]{32}(-[0-9]{1,5})?"')
"""An ETag of S3, and of what passes it on: the MD5 of the content, or of its parts' MD5s."""


@dataclass(slots=True)
class _Pending:
    item: Item
    future: Future[CopyResult]
    known: StoredObject | None
    tolerant: Tolerant | None
    again: bool = False  # submitted once more, to be read in another way
    fresh: bool = False  # submitted once more, for what came first is not confirmed
    noted: bool = False  # looked at by `_note_early`
    ended: bool = False  # `_look_ahead` has seen it end
    result: CopyResult | None = None  # if it ended well


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
        labels: Mapping[str, str] | None = None,
        keeping: bool = False,
        has_work: bool = True,
    ) -> None:
        """`exact`: an equal `version` names equal bytes. `manifests`: by store, the whole ones of this folder.
        `labels`: of the asset (`records.labels`).
        `keeping`: store what is not what it should be, and say so in a doubt. `has_work`: whether the ledger may know
        of objects that an earlier attempt stored."""
        self._asset_id = lease.asset_id
        self._engine = engine
        self._heartbeat = heartbeat
        self._exact = exact
        self._keeping = keeping
        self._requests = ItemRequests(folder, manifests, labels)
        self._stores = RemainingStores(
            stores,
            folder,
            manifests,
            lambda name: ledger.stored_objects(lease.asset_id, name, version) if has_work else {},
        )
        self._journal = StoredJournal(ledger, lease, version, self._stores)
        self._copied = CopiedSoFar(self._requests.doubted)
        self._taken: set[str] = set()
        self._failures = 0  # mandatory items that were refused or not answered
        self._failed_items: list[tuple[_Pending, SourceError]] = []
        self._failed_beside_source: dict[
            str, StorageError
        ] = {}  # they may take the object when it is retried
        self._pending: deque[_Pending] = deque()
        self._ended: deque[Future[CopyResult]] = deque()  # filled by the engine's thread
        self._in_flight: dict[Future[CopyResult], _Pending] = {}
        self._unconfirmed: Unconfirmed[tuple[_Pending, CopyResult]] = Unconfirmed(engine)

    @property
    def taken(self) -> AbstractSet[str]:
        """Paths that this copy has begun with, as it goes on: it may write no others."""
        return self._taken

    @property
    def failed(self) -> Mapping[str, StorageError]:
        """The destinations that did not take an object, and why, as it goes on."""
        return {**self._failed_beside_source, **self._stores.failed}

    def copy(self, items: Iterable[Item]) -> Copied:
        """Raises SourceError when the source is down, DestinationsFailed when no store is left, WouldOverwrite when
        an item differs from what a manifest of this folder lists, or from what is there and may not be replaced;
        LeaseLost, Stopped, and whatever is no fault of the source."""
        try:
            self._stores.drop({})
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
            if self._copied.is_small and not self._stores.failed:
                self._journal.leave_if_small()
        except Preempted:
            self._preempt()
        except (SourceError, DestinationsFailed, WouldOverwrite) as error:
            if isinstance(error, SourceError):
                self._failed_beside_source.update(error.failed_stores)
            self._keep_confirmed()
            raise
        finally:
            self._journal.record()
        return self._copied.result(self._stores.failed)

    # -- one item: submit, wait, take ----------------------------------------------------------------------
    def _start(self, item: Item) -> None:
        if item.path in self._taken:
            self._copied.doubt(item, "two files of the asset have this path; the first is stored")
            if item.chunks is not None:
                item.chunks.skip()
            return
        self._taken.add(item.path)
        known = self._stores.whole(item.path)
        if known is not None and self._is_the_same(item, known):
            if item.chunks is not None:
                item.chunks.skip()
            self._copied.keep_known(item, known)
            self._heartbeat.object_done(copied=False)
            return
        # what is kept already is read once to look at it
        tolerates = self._keeping or item.path in self._requests.doubted
        tolerant = Tolerant(item.path) if tolerates and not item.optional else None
        if item.source is not None:
            self._submit(item, item.source, known, tolerant)
        else:
            self._submit_chunks(item, known, tolerant)
        while len(self._pending) > IN_FLIGHT or (self._pending and self._pending[0].ended):
            self._collect()
            self._judge_confirmed(self._unconfirmed.confirm_meanwhile())

    def _is_the_same(self, item: Item, known: StoredObject) -> bool:
        """Without asking the source: it is made by us, or comes out of one file whose version says so."""
        if item.data is not None:
            return (known.size_bytes, known.crc32c) == (len(item.data), crc32c(item.data))
        return item.chunks is not None and self._exact

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
        request = self._requests.request(item, known, tolerant)
        if fresh:
            request = replace(request, fresh=True)
        future = self._engine.submit(source, request, self._stores.alive)
        self._await(_Pending(item, future, known, tolerant, again, fresh))

    def _submit_chunks(self, item: Item, known: StoredObject | None, tolerant: Tolerant | None) -> None:
        request = self._requests.request(item, known, tolerant)
        chunks = item.chunks if item.chunks is not None else [item.data or b""]
        try:
            future = self._engine.submit_chunks(chunks, request, self._stores.alive)
        except SourceMismatch as error:
            if item.chunks is None:
                raise
            self._failed(_Pending(item, Future(), None, tolerant), error)
            return
        self._await(_Pending(item, future, None, tolerant))

    def _await(self, pending: _Pending) -> None:
        self._pending.append(pending)
        self._in_flight[pending.future] = pending
        pending.future.add_done_callback(self._ended.append)
        self._look_ahead()

    def _collect(self) -> None:
        """Wait for the oldest that is pending, and take it, or note that it failed."""
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
            self._stores.drop(result.failed)
        if not pending.fresh:
            self._heartbeat.object_done()
        if item.source is None:
            self._take(pending, result)
        else:
            self._unconfirmed.add(self._requests.key(item.path), result.size_bytes, (pending, result))

    def _result(self, pending: _Pending) -> CopyResult:
        """Wait until it has ended, recording what ends before it."""
        if pending.result is not None:
            return pending.result
        future = pending.future
        while not future.done():
            self._look_ahead()
            try:
                future.result(timeout=JOURNAL_AFTER_SECONDS)
            except TimeoutError as error:
                if future.done() and future.exception() is error:
                    raise
                self._heartbeat.check()
        result = future.result()
        if not pending.noted:
            self._note_early(pending, result)
            self._journal.record_if_due()
        return result

    def _look_ahead(self) -> None:
        """Note what has ended, and record it if it did so behind one that goes on."""
        while self._ended:
            future = self._ended.popleft()
            pending = self._in_flight.pop(future, None)
            if pending is not None:
                pending.ended = True
                if future.exception() is None:
                    pending.result = future.result()
                    self._note_early(pending, pending.result)
        self._journal.record_if_due()

    def _note_early(self, pending: _Pending, result: CopyResult) -> None:
        """Record an object before it is confirmed if its ETag is a digest, which no other content has. The next attempt
        requests it again and confirms that response like any other."""
        item = pending.item
        pending.noted = True
        if item.source is None or pending.fresh or result.unchanged or result.failed or result.source is None:
            return
        if not _DIGEST.fullmatch(result.source.strong_etag or ""):
            return
        if not (pending.tolerant and pending.tolerant.found) and not perhaps_cut(item, result):
            self._journal.add_early(_stored(item, result))

    def _raise_if_taken(self, item: Item, failed: Mapping[str, StorageError]) -> None:
        """Raise WouldOverwrite when other content is at the item's key and may not be replaced (retention, WORM): it
        would be refused at every attempt. A backend takes equal content there for success."""
        key = self._requests.key(item.path)
        for store in self._stores.alive:
            if isinstance(failed.get(store.name), AccessDenied):
                with suppress(StorageError):
                    if store.stat(key) is not None:
                        raise WouldOverwrite(item.path, f"what is at {store.name} and may not be replaced")

    def _take(self, pending: _Pending, result: CopyResult, doubt: str | None = None) -> None:
        """What arrived is this item's, but for a `doubt`."""
        item = pending.item
        if result.unchanged and pending.known is not None:
            doubted = self._copied.keep_known(item, pending.known, doubt)
        else:
            doubted = self._add(item, pending, result, doubt)
        if not doubted:
            self._copied.judge_length(item, result)

    def _add(self, item: Item, pending: _Pending, result: CopyResult, doubt: str | None) -> bool:
        """Return whether there is a doubt about it. Then it is not recorded: no later attempt must trust it."""
        found = doubt or (pending.tolerant.found if pending.tolerant else None) or perhaps_cut(item, result)
        stored = _stored(item, result)
        self._copied.add(item, stored, found)
        if item.data is not None:
            return False
        if not found:
            self._journal.add(stored)
        return bool(found)

    # -- a phase: until everything is confirmed, asked for again, or given up ------------------------------
    def _finish_phase(self) -> None:
        self._settle()
        self._retry_failed()
        failed, self._failed_items, self._failures = self._failed_items, [], 0
        for pending, error in failed:
            known = self._stores.whole(pending.item.path)
            self._copied.give_up(pending.item, error, known)
            if known is not None:
                self._heartbeat.object_done(copied=False)

    def _settle(self) -> None:
        """Until nothing is under way and everything is confirmed, or in doubt."""
        self._drain()
        while self._unconfirmed:
            self._judge_confirmed(self._unconfirmed.confirm())
            self._drain()

    def _drain(self) -> None:
        while self._pending:
            self._heartbeat.check()
            self._collect()

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
            log.warning("copied_again", asset_id=self._asset_id, objects=copied_again, reason=PERHAPS_MIXED)

    def _copy_again(self, pending: _Pending, result: CopyResult) -> None:
        item, known = pending.item, pending.known
        assert item.source is not None, "only what a source sent can be another's"
        if not result.unchanged:  # what was known to be there was written over
            known = None
            self._stores.forget(item.path)
        self._journal.take_back(item.path)
        tolerant = Tolerant(item.path) if pending.tolerant is not None else None
        self._submit(item, item.source, known, tolerant, fresh=True)

    # -- what could not be fetched -----------------------------------------------------------------------------
    def _failed(self, pending: _Pending, error: SourceError) -> None:
        item = pending.item
        self._failed_beside_source.update(error.failed_stores)
        if is_machine_fault(error):
            raise error
        guarded = self._requests.is_listed(item.path) and type(error) is SourceMismatch
        if (source := _in_another_way(pending, error)) is not None:
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
        error.failed_stores = {}
        self._failed_items.append((pending, error))

    def _retry_failed(self) -> None:
        """Ask once more for what could not be fetched: of tens of thousands of files a few get a strange answer at
        every attempt. Not for the one file that an asset is, which the next attempt asks for on a fresh URL."""
        for _ in range(ROUNDS):
            failed = self._failed_items
            if not failed or len(failed) > MOST_RETRIED or (len(failed) == 1 and not self._copied.has_media):
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

    # -- an early end --------------------------------------------------------------------------------------
    def _preempt(self) -> NoReturn:
        """Raise Preempted once what is in flight has ended, at a part's end at the latest."""
        while self._pending:
            with suppress(Preempted):
                self._drain()
        self._keep_confirmed()
        raise self._heartbeat.preempted()

    def _keep_confirmed(self) -> None:
        """Record what arrived before the copy ends early, so that the next attempt need not copy it."""
        if self._stores.alive and self._unconfirmed:
            for (pending, result), why in self._unconfirmed.confirm():
                if why is None:
                    self._take(pending, result)


def _in_another_way(pending: _Pending, error: SourceError) -> Source | None:
    """Return how else the object may be read: as one plain stream, or, to keep it, in the coding that it is sent in."""
    source = pending.item.source
    if source is None or pending.again:
        return None
    if isinstance(error, RangesUnreliable | SourceChanged):
        return plain(source)
    if isinstance(error, StillEncoded) and pending.tolerant is not None:
        pending.tolerant.remember(error)
        return as_sent(source)
    return None


def _stored(item: Item, result: CopyResult) -> StoredObject:
    return StoredObject(
        path=item.path,
        size_bytes=result.size_bytes,
        crc32c=result.crc32c,
        content_type=item.content_type,
        source_etag=result.source.etag if result.source else None,
    )
