"""One object, from its source to its stores: read by ranges or straight through, checked, then made visible.

Everything that can be checked is checked before a store is told to complete: bytes counted against what the
source announced and what the caller expects, the first bytes, the source's own checksum, the caller's.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from ledger.errors import LeaseLost
from storage_backends.base import ObjectKey, ObjectSpec, Part, StorageBackend
from storage_backends.errors import StorageError
from transfer.base import Chunks, CopyRequest, CopyResult, Reader, Source, SourceInfo
from transfer.checksums import combine, crc32c
from transfer.crew import Crew, Job
from transfer.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceMismatch,
    SourceUnavailable,
    Stopped,
    TransferError,
)
from transfer.lane import Lane
from transfer.memory import Block, MemoryBudget
from transfer.one_request import OneRequest
from transfer.pace import Pace
from transfer.part_sizes import Parts, part_size, unsuitable
from transfer.placement import Placement
from transfer.retrying import Patience
from transfer.sending import Dispatch, Ending, FilledPart

_RECORD_BYTES = 16 * 1024  # of TLS
_SNIFFED_BYTES = 512  # what `CopyRequest.check` is promised


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tools:
    """What all copies of an engine share."""

    getters: Crew
    dispatch: Dispatch
    memory: MemoryBudget
    part_bytes: int
    patience: Patience
    pace: Pace
    placement: Placement
    on_bytes: Callable[[ObjectKey, int], None]
    stopping: Callable[[], bool]


class ObjectCopy:
    """One copy. `future` resolves once, when every store has ended; when told to stop, at once."""

    def __init__(
        self,
        request: CopyRequest,
        stores: Sequence[StorageBackend],
        tools: Tools,
        on_over: Callable[[ObjectCopy], None],
    ) -> None:
        self.future: Future[CopyResult] = Future()
        self.future.set_running_or_notify_cancel()
        self._request = request
        self._stores = stores
        self._tools = tools
        self._on_over = on_over
        self._info: SourceInfo | None = None
        self._lock = threading.Lock()
        self._ways: Sequence[Lane | OneRequest] = ()  # one to each store, once it is known which kind
        self._lanes: Sequence[Lane] = ()  # these, when there are several parts
        self._error: BaseException | None = None
        self._over = False  # nothing more is to be read
        self._resolved = False
        self._crcs: dict[int, tuple[int, int]] = {}  # by part: CRC32C and size
        self._unread = 0  # parts still to come, of a ranged copy
        self._whole: tuple[int, int] | None = None  # size and CRC32C, once everything was read

    @property
    def name(self) -> str:
        """For messages."""
        return self._request.key

    # -- two ways to begin ---------------------------------------------------------------------------------
    def from_source(self, source: Source) -> None:
        """In the background."""
        self._tools.getters.add(Job(lambda _: self._open(source), self._job_ended, wanted=self._wanted))

    def from_chunks(self, chunks: Chunks) -> None:
        """In this thread. Reads all of `chunks`, whatever becomes of the copy; raises what they raise, and the
        stop signal's exception. Everything else is in the future."""
        size_bytes = self._request.size_bytes
        if size_bytes is None and isinstance(chunks, Sequence):  # a playlist made by us: known, and small
            size_bytes = sum(len(chunk) for chunk in chunks)
        body = _Body(_ChunkReader(chunks), size_bytes, self, SourceMismatch)
        try:
            self._straight(body, self._first_part(body), None)
        except _ChunksFailed as failed:
            self.fail(failed.error)
            raise failed.error from None
        except (TransferError, StorageError) as error:
            self.fail(error)
            if self._tools.stopping():
                raise
        except BaseException as error:
            self.fail(error)
            raise
        try:
            body.drain()
        except _ChunksFailed as failed:
            self.fail(failed.error)
            raise failed.error from None

    # -- reading -------------------------------------------------------------------------------------------
    def _open(self, source: Source) -> None:
        wanted_bytes = self._part_size(self._request.size_bytes)
        # of a file that another worker has begun, the first part is probably stored already
        first_bytes = _SNIFFED_BYTES if self._begun_before(wanted_bytes) else wanted_bytes

        def attempt() -> Callable[[], None]:
            info, reader = source.open(first_bytes)
            try:
                self._check_size(info.size_bytes)
                if info.ranges and info.size_bytes is not None and info.size_bytes > first_bytes:
                    return partial(self._ranged, source, info, info.size_bytes, reader, first_bytes)
                body = self._body(reader, info.size_bytes, source)
                filled = self._first_part(body)
                self._answered(info, filled.size_bytes)
                return partial(self._straight, body, filled, info)
            except BaseException:
                reader.close()
                raise

        go_on = self._paced(attempt, _unavailable)
        go_on()

    def _body(self, reader: Reader, announced_bytes: int | None, source: Source) -> _Body:
        if announced_bytes is not None:
            return _Body(reader, announced_bytes, source, SourceUnavailable)
        return _Body(reader, self._request.size_bytes, source, SourceMismatch)

    def _begun_before(self, part_bytes: int) -> bool:
        size_bytes = self._request.size_bytes
        if size_bytes is None or size_bytes <= part_bytes:
            return False
        return any(self._tools.dispatch.load(store.name, self._request.key) for store in self._stores)

    def _part_size(self, size_bytes: int | None) -> int:
        return part_size(size_bytes, self._tools.part_bytes, self._stores)

    def _begun_with(self, info: SourceInfo) -> int | None:
        """The part size of an upload of this very file that another worker began, where it suits all stores: a new
        version with another part size goes on with it all the same."""
        for store in self._stores:
            saved = self._tools.dispatch.load(store.name, self._request.key)
            if saved is None or (saved.size_bytes, saved.source_etag) != (info.size_bytes, info.etag):
                continue
            fits = saved.part_bytes <= self._tools.memory.limit_bytes
            if fits and part_size(saved.size_bytes, saved.part_bytes, self._stores) == saved.part_bytes:
                return saved.part_bytes
        return None

    def _first_part(self, body: _Body) -> _Filled:
        bound = self._part_size(body.expected_bytes)
        size_bytes = bound if body.expected_bytes is None else min(bound, body.expected_bytes)
        return self._fill(body, size_bytes)

    def _fill(self, body: _Body, size_bytes: int) -> _Filled:
        """Up to `size_bytes` of the body, and whether there is more."""
        block = self._tools.memory.reserve(size_bytes) if size_bytes else None
        try:
            count = body.fill(block.first(size_bytes)) if block else 0
            return _Filled(block, count, body.more())
        except BaseException:
            if block:
                block.release()
            raise

    def _straight(self, body: _Body, filled: _Filled, info: SourceInfo | None) -> None:
        """One part after the other, in this thread: no ranges, an unknown length, or a single part."""
        self._info = info
        try:
            if not filled.more:
                self._single(filled, info)
                return
            part_bytes = filled.size_bytes  # the first of several is full
            try:
                self._add_lanes(body.expected_bytes, part_bytes)
            except BaseException:
                filled.release()
                raise
            for lane in self._lanes:
                lane.begin()
            number, more = 1, True
            self._deliver(number, filled)
            while more and self._wanted():
                number += 1
                self._check_count(number)
                filled = self._fill(body, part_bytes)
                more = filled.more
                self._deliver(number, filled)
            if self._wanted():
                self._all_read(number)
        finally:
            body.reader.close()

    def _single(self, filled: _Filled, info: SourceInfo | None) -> None:
        """The whole object in one buffer: one request stores it."""
        part = self._part(1, filled)
        try:
            self._check_whole(part.size_bytes, part.crc32c)
            if info and info.md5 and info.crc32c is None:
                self._check_md5(part, info.md5)
            self._tools.on_bytes(self._request.key, part.size_bytes)
            spec, dispatch = self._spec(part.size_bytes, 0), self._tools.dispatch
            ways = [
                OneRequest(store, spec, part, dispatch, self._way_ended, self.fail) for store in self._stores
            ]
            self._set_out(ways, spec)
            for way in ways:
                way.begin()
        finally:
            part.release()

    def _ranged(
        self, source: Source, info: SourceInfo, size_bytes: int, reader: Reader, first_bytes: int
    ) -> None:
        """Several parts, read in parallel by ranges; those that every store holds already are not read."""
        self._info = info
        parts = Parts(size_bytes, self._begun_with(info) or self._part_size(size_bytes))
        block: Block | None = None
        try:
            self._add_lanes(size_bytes, parts.part_bytes)
            held = self._resume(parts)
            if 1 in held:
                self._check_first(_read_first(reader, size_bytes))
            missing = [number for number in parts.numbers if number not in held]
            with self._lock:
                self._unread = len(missing)
                self._crcs = {number: (part.crc32c, part.size_bytes) for number, part in held.items()}
            if held:
                self._tools.on_bytes(self._request.key, sum(part.size_bytes for part in held.values()))
            if not missing:
                self._all_read(parts.count)
            if missing[:1] == [1] and first_bytes == parts.part_bytes:
                # the first part is on its way already; it has its buffer before later parts ask for theirs
                block = self._tools.memory.reserve(parts.part_bytes)
                missing = missing[1:]
            for number in missing:
                read = partial(self._read_part, source, info, parts, number)
                self._tools.getters.add(Job(read, self._job_ended, parts.size_of(number), self._wanted))
            if block:
                first, block = block, None
                self._read_part(source, info, parts, 1, first, reader)
        finally:
            reader.close()
            if block:
                block.release()

    def _resume(self, parts: Parts) -> dict[int, Part]:
        """Go on where another worker stopped, or begin; the parts that every store holds."""
        saved = {lane: lane.saved() for lane in self._lanes}
        resumed = {
            lane: lane.resume(known, parts.size_of) for lane, known in saved.items() if known is not None
        }
        fresh = [lane for lane, known in saved.items() if known is None]
        for lane in fresh:
            lane.begin()
        held = [found for lane, found in resumed.items() if lane.open]
        if not held or any(lane.open for lane in fresh):
            return {}
        common = {n: part for n, part in held[0].items() if all(n in other for other in held)}
        if any(other[n].crc32c != part.crc32c for n, part in common.items() for other in held):
            for lane in resumed:  # they cannot all be right, and which is cannot be known
                lane.begin_anew()
            return {}
        return common

    def _read_part(
        self,
        source: Source,
        info: SourceInfo,
        parts: Parts,
        number: int,
        block: Block | None,
        reader: Reader | None = None,
    ) -> None:
        """Part `number`; from `reader`, an answer already open, if there is one, and by its range if that fails."""
        assert block is not None, "the crew reserves what the job asked for"
        view = block.first(parts.size_of(number))

        def attempt() -> None:
            nonlocal reader
            opened, reader = reader, None
            if opened is None:
                source.read_range(parts.start_of(number), view, info)
            else:
                body = _Body(opened, len(view), source, SourceUnavailable)
                body.fill(view)
                body.more()

        try:
            self._paced(attempt, _unavailable_or_odd)
            self._answered(info, len(view))
        except BaseException:
            block.release()
            raise
        self._deliver(number, _Filled(block, len(view), more=False))
        with self._lock:
            self._unread -= 1
            last = not self._unread
        if last and self._wanted():
            self._all_read(parts.count)

    def _answered(self, info: SourceInfo, size_bytes: int) -> None:
        """One answer was read to its end."""
        self._tools.pace.moved(size_bytes)
        self._tools.placement.moved(_RECORD_BYTES if info.tls else size_bytes)

    def _paced(self, action: Callable[[], T], worth_it: Callable[[Exception], bool]) -> T:
        def attempt() -> T:
            if not self._wanted():
                raise Stopped(f"the copy of {self.name} is over")
            try:
                return action()
            except SourceUnavailable as error:
                if error.throttled:
                    self._tools.pace.throttled()
                raise

        return self._tools.patience.keep_trying(attempt, worth_it)

    # -- what was read -------------------------------------------------------------------------------------
    def _part(self, number: int, filled: _Filled) -> FilledPart:
        """The bytes with their checksum; of the first part, once they look right."""
        view = filled.block.first(filled.size_bytes) if filled.block else memoryview(b"")
        try:
            if number == 1:
                self._check_first(bytes(view[:_SNIFFED_BYTES]))
            return FilledPart(number, filled.size_bytes, crc32c(view), filled.block)
        except BaseException:
            filled.release()
            raise

    def _deliver(self, number: int, filled: _Filled) -> None:
        part = self._part(number, filled)
        try:
            with self._lock:
                self._crcs[number] = (part.crc32c, part.size_bytes)
            self._tools.on_bytes(self._request.key, part.size_bytes)
            for lane in self._lanes:
                lane.offer(part)
        finally:
            part.release()

    def _all_read(self, count: int) -> None:
        crc = size_bytes = 0
        for number in range(1, count + 1):
            part_crc, part_bytes = self._crcs[number]
            crc = combine(crc, part_crc, part_bytes)
            size_bytes += part_bytes
        self._check_whole(size_bytes, crc)
        for lane in self._lanes:
            lane.finish(count, crc)

    # -- checks --------------------------------------------------------------------------------------------
    def _check_size(self, size_bytes: int | None) -> None:
        wanted = self._request.size_bytes
        if size_bytes is not None and wanted is not None and size_bytes != wanted:
            raise SourceMismatch(
                f"the source of {self.name} has {size_bytes} bytes, not the {wanted} expected"
            )

    def _check_first(self, first: bytes) -> None:
        if self._request.check is not None:
            self._request.check(first)

    def _check_whole(self, size_bytes: int, crc: int) -> None:
        self._check_size(size_bytes)
        announced = self._info.crc32c if self._info else None
        for expected, whose in ((announced, "the source announced"), (self._request.crc32c, "was expected")):
            if expected is not None and expected != crc:
                raise SourceMismatch(
                    f"what arrived for {self.name} has CRC32C {crc:08x}, not the {expected:08x} that {whose}"
                )
        with self._lock:
            self._whole = (size_bytes, crc)

    def _check_md5(self, part: FilledPart, expected: bytes) -> None:
        """Of objects of one part only: MD5 costs thirty times what CRC32C does (storage.md), and a large object
        cannot be put together from its parts' MD5s."""
        arrived = hashlib.md5(part.data, usedforsecurity=False).digest()
        if arrived != expected:
            raise SourceMismatch(
                f"what arrived for {self.name} has MD5 {arrived.hex()}, not the announced {expected.hex()}"
            )

    def _check_count(self, number: int) -> None:
        """Only for a length that was not known: else the parts were made large enough."""
        for lane in self._lanes:
            if number > lane.store.limits.max_parts:
                lane.fail(
                    StorageError(
                        f"{lane.store.name}: {self.name} has an unknown length and more than "
                        f"{lane.store.limits.max_parts} parts; larger parts are needed"
                    )
                )

    # -- ends ----------------------------------------------------------------------------------------------
    def fail(self, error: BaseException) -> None:
        """End the copy with `error`, unless it is over. What becomes of unfinished uploads: `Ending`."""
        if self._tools.stopping() or isinstance(error, LeaseLost | Stopped):
            ending = Ending.LEAVE
        elif isinstance(error, SourceError) and not isinstance(error, SourceUnavailable | SourceForbidden):
            ending = Ending.DISCARD
        else:
            ending = Ending.KEEP
        with self._lock:
            if self._error is not None or self._resolved:
                return
            self._over, self._error = True, error
            ways = self._ways
        for way in ways:
            way.give_up(ending)
        self._resolve(at_once=ending is Ending.LEAVE)

    def _job_ended(self, error: BaseException | None) -> None:
        if error is not None:
            self.fail(error)

    def _wanted(self) -> bool:
        return not self._over

    def _spec(self, size_bytes: int | None, part_bytes: int) -> ObjectSpec:
        request = self._request
        return ObjectSpec(request.key, request.content_type, size_bytes, part_bytes, request.metadata)

    def _add_lanes(self, size_bytes: int | None, part_bytes: int) -> None:
        spec, dispatch = self._spec(size_bytes, part_bytes), self._tools.dispatch
        etag = self._info.etag if self._info else None
        lanes = [Lane(store, spec, etag, dispatch, self._way_ended, self.fail) for store in self._stores]
        self._lanes = lanes
        self._set_out(lanes, spec)

    def _set_out(self, ways: Sequence[Lane | OneRequest], spec: ObjectSpec) -> None:
        """From here on the copy ends when `ways` have."""
        with self._lock:
            if self._over:
                raise Stopped(f"the copy of {self.name} is over")
            self._ways = ways
        for way in ways:
            why = unsuitable(way.store, spec.size_bytes, spec.part_bytes)
            if why:
                way.fail(StorageError(f"{way.store.name} cannot hold {self.name}: {why}"))

    def _way_ended(self) -> None:
        self._resolve(at_once=False)

    def _resolve(self, at_once: bool) -> None:
        """Settle the future, when all ways have ended (or `at_once`)."""
        with self._lock:
            if self._resolved or (not self._ways and self._error is None):
                return
            if not at_once and not all(way.ended for way in self._ways):
                return
            self._resolved = self._over = True
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result())
        self._on_over(self)

    def _result(self) -> CopyResult:
        size_bytes, crc = self._whole or ((self._info.size_bytes if self._info else None) or 0, 0)
        return CopyResult(
            key=self._request.key,
            size_bytes=size_bytes,
            crc32c=crc,
            source=self._info,
            stored={way.store.name: way.info for way in self._ways if way.info is not None},
            failed={way.store.name: way.error for way in self._ways if way.error is not None},
        )


# -- bodies --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Filled:
    block: Block | None  # None: nothing was read
    size_bytes: int
    more: bool

    def release(self) -> None:
        if self.block:
            self.block.release()


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Body:
    """A body read piece by piece, held to the length it is expected to have. `short` is what it means when it ends
    too early: a cut, where the source itself announced the length; where we expected it, the wrong file."""

    def __init__(
        self, reader: Reader, expected_bytes: int | None, origin: _Named, short: type[SourceError]
    ) -> None:
        self.reader = reader
        self.expected_bytes = expected_bytes
        self._origin = origin
        self._short = short
        self._read_bytes = 0
        self._ahead = b""  # one byte, read to see whether there is more

    def fill(self, into: memoryview) -> int:
        """Fill `into`, less at the end. Raises `short` when that comes before the expected length."""
        into[: len(self._ahead)] = self._ahead
        filled, self._ahead = len(self._ahead), b""
        while filled < len(into) and (count := self.reader.readinto(into[filled:])):
            filled += count
        self._read_bytes += filled
        if filled < len(into) and self.expected_bytes is not None and self._read_bytes < self.expected_bytes:
            raise self._short(
                f"{self._origin.name} ended after {self._read_bytes} bytes of the {self.expected_bytes} expected"
            )
        return filled

    def more(self) -> bool:
        """Whether there is anything left. Raises SourceMismatch when there is, beyond the expected length."""
        if not self._ahead:
            one = bytearray(1)
            self._ahead = bytes(one[: self.reader.readinto(memoryview(one))])
        if self._ahead and self.expected_bytes is not None and self._read_bytes >= self.expected_bytes:
            raise SourceMismatch(
                f"{self._origin.name} is longer than the {self.expected_bytes} bytes expected"
            )
        return bool(self._ahead)

    def drain(self) -> None:
        scrap = memoryview(bytearray(64 * 1024))
        while self.reader.readinto(scrap):
            pass


class _ChunksFailed(Exception):
    """Carries what `chunks` raised past our own handling of errors."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _ChunkReader:
    """Chunks as a Reader."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks: Iterator[bytes | memoryview] = iter(chunks)
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._rest:
            try:
                self._rest = memoryview(next(self._chunks))
            except StopIteration:
                return 0
            except Exception as error:
                raise _ChunksFailed(error) from error
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        return


def _read_first(reader: Reader, size_bytes: int) -> bytes:
    first = bytearray(min(_SNIFFED_BYTES, size_bytes))
    view, filled = memoryview(first), 0
    while filled < len(first) and (count := reader.readinto(view[filled:])):
        filled += count
    return bytes(first[:filled])


def _unavailable(error: Exception) -> bool:
    return isinstance(error, SourceUnavailable)


def _unavailable_or_odd(error: Exception) -> bool:
    """One strange answer among thousands of ranges (a 200, HTML from one edge of a CDN) is asked for again; a file
    that changed is not."""
    return isinstance(error, SourceUnavailable | SourceMismatch) and not isinstance(error, SourceChanged)
