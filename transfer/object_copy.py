"""One object, from its source to its stores: read by ranges or straight through, checked, then made visible.

Everything that can be checked is checked before a store is told to complete: bytes counted against what the
source announced and what the caller expects, the first bytes, the source's own checksum, the caller's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ledger.errors import LeaseLost
from storage_backends.base import ObjectKey, ObjectSpec, Part, StorageBackend
from storage_backends.errors import StorageError
from transfer.base import CHECKED_BYTES, Chunks, CopyRequest, CopyResult, Reader, Source, SourceInfo
from transfer.bodies import Body, ChunkReader, ChunksFailed, Filled, measure, read_first
from transfer.checks import Checks, ReadRange
from transfer.checksums import combine, crc32c
from transfer.crew import Crew, Job
from transfer.errors import (
    RangesUnreliable,
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceMismatch,
    SourceUnavailable,
    Stopped,
    TransferError,
    UnexpectedContent,
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
# after these the source may still be read, with what is stored already: it is left for another attempt
_WORTH_KEEPING = (SourceUnavailable, SourceForbidden, UnexpectedContent, RangesUnreliable)

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
        self._checks = Checks(request)
        self._info: SourceInfo | None = None
        self._read: ReadRange | None = None  # any bytes of the source once more, where it has ranges
        self._lock = threading.Lock()
        self._ways: Sequence[Lane | OneRequest] = ()  # one to each store, once it is known which kind
        self._lanes: Sequence[Lane] = ()  # these, when there are several parts
        self._error: BaseException | None = None
        self._over = False  # nothing more is to be read
        self._resolved = False
        self._crcs: dict[int, tuple[int, int]] = {}  # by part: CRC32C and size
        self._longest_bytes = 0  # that a body without framing was seen to have
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
        body = Body(ChunkReader(chunks), size_bytes, self, SourceMismatch)
        try:
            self._straight(body, self._first_part(body))
        except ChunksFailed as failed:
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
        except ChunksFailed as failed:
            self.fail(failed.error)
            raise failed.error from None

    # -- reading -------------------------------------------------------------------------------------------
    def _open(self, source: Source) -> None:
        wanted_bytes = self._part_size(self._request.size_bytes)
        # of a file that another worker has begun, the first part is probably stored already
        first_bytes = CHECKED_BYTES if self._begun_before(wanted_bytes) else wanted_bytes

        def attempt() -> Callable[[], None]:
            info, reader = self._first_answer(source, first_bytes)
            if self._checks.unchanged(info):
                _finish_range(info, reader)
                return partial(self._unchanged, info)
            try:
                self._checks.size(info.size_bytes)
                if info.ranges and info.size_bytes is not None and info.size_bytes > first_bytes:
                    return partial(self._ranged, source, info, info.size_bytes, reader, first_bytes)
                confirm = partial(self._confirm, source, info, first_bytes)
                body = self._body(reader, info, source)
                filled = self._first_part(body)
                self._answered(info, filled.size_bytes)
                if not filled.more and not self._checks.proves_whole(info, one_part=True):
                    self._confirm_one_part(confirm, filled)
                return partial(self._from_body, source, info, body, filled, confirm)
            except BaseException:
                reader.close()
                raise

        go_on = self._paced(attempt, _unavailable)
        go_on()

    def _first_answer(self, source: Source, first_bytes: int) -> tuple[SourceInfo, Reader]:
        """Where the copy may turn out to be needless, little is asked for before the rest."""
        if self._request.known is None:
            return source.open(first_bytes)
        little = min(first_bytes, CHECKED_BYTES)
        info, reader = source.open(little)
        if self._checks.unchanged(info) or not info.ranges or little == first_bytes:
            return info, reader
        if info.size_bytes is not None and info.size_bytes <= little:
            return info, reader
        _finish_range(info, reader)
        return source.open(first_bytes)

    def _unchanged(self, info: SourceInfo) -> None:
        known = self._request.known
        assert known is not None, "without it nothing is unchanged"
        with self._lock:
            if self._over:
                raise Stopped(f"the copy of {self.name} is over")
            self._resolved = self._over = True
        self.future.set_result(
            CopyResult(self._request.key, known.size_bytes, known.crc32c, info, {}, {}, unchanged=True)
        )
        self._on_over(self)

    def _know(self, source: Source, info: SourceInfo) -> None:
        self._info = self._checks.info = info

        def read(start: int, into: memoryview) -> None:
            self._paced(lambda: source.read_range(start, into, info), _unavailable_or_odd)

        self._read = read if info.ranges else None

    def _body(self, reader: Reader, info: SourceInfo, source: Source) -> Body:
        if info.size_bytes is not None:
            return Body(reader, info.size_bytes, source, SourceUnavailable)
        # one that ends with its connection and is shorter than expected was probably cut
        return Body(
            reader, self._request.size_bytes, source, SourceMismatch if info.framed else SourceUnavailable
        )

    # -- whole by two reads --------------------------------------------------------------------------------
    def _confirm_one_part(self, confirm: Callable[[int, int], None], filled: Filled) -> None:
        try:
            confirm(filled.size_bytes, crc32c(filled.view))
        except BaseException:
            filled.release()
            raise

    def _confirm(self, source: Source, info: SourceInfo, first_bytes: int, size_bytes: int, crc: int) -> None:
        """Read a body that ends with its connection once more, and nothing of it is kept: a cut looks like the end.
        Raises SourceUnavailable when it is another body, and always when a longer one was seen."""
        if self._longest_bytes <= size_bytes:
            again, reader = source.open(first_bytes)
            if again.ranges and again.size_bytes is not None and again.size_bytes > first_bytes:
                reader.close()  # this time the length is told, and that is proof enough
                found_bytes, same = again.size_bytes, again.etag == info.etag
            else:
                found_bytes, found_crc = measure(reader)
                same = found_crc == crc
            self._longest_bytes = max(self._longest_bytes, size_bytes, found_bytes)
            if same and found_bytes == size_bytes:
                return
        raise SourceUnavailable(
            f"{source.name} gives no length, and what was read of it differs: {size_bytes} bytes, then others"
        )

    def _begun_before(self, part_bytes: int) -> bool:
        size_bytes = self._request.size_bytes or self._request.likely_bytes
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

    def _first_part(self, body: Body) -> Filled:
        bound = self._part_size(body.expected_bytes)
        size_bytes = bound if body.expected_bytes is None else min(bound, body.expected_bytes)
        return self._fill(body, size_bytes)

    def _fill(self, body: Body, size_bytes: int) -> Filled:
        """Up to `size_bytes` of the body, and whether there is more."""
        block = self._tools.memory.reserve(size_bytes) if size_bytes else None
        try:
            count = body.fill(block.first(size_bytes)) if block else 0
            return Filled(block, count, body.more())
        except BaseException:
            if block:
                block.release()
            raise

    def _from_body(
        self,
        source: Source,
        info: SourceInfo,
        body: Body,
        filled: Filled,
        confirm: Callable[[int, int], None],
    ) -> None:
        self._know(source, info)
        needed = not self._checks.proves_whole(info, one_part=False)
        self._straight(body, filled, confirm if needed else None)

    def _straight(
        self, body: Body, filled: Filled, confirm: Callable[[int, int], None] | None = None
    ) -> None:
        """One part after the other, in this thread: no ranges, an unknown length, or a single part. `confirm` the
        length and CRC32C of several parts; those of one are certain."""
        try:
            if not filled.more:
                self._single(filled)
                return
            part_bytes = filled.size_bytes  # the first of several is full
            try:
                self._add_lanes(body.expected_bytes, part_bytes)
                self._resume(Parts(body.expected_bytes or 0, part_bytes))  # saves sending, not reading
            except BaseException:
                filled.release()
                raise
            number, more = 1, True
            self._deliver(number, 0, filled)
            while more and self._wanted():
                number += 1
                self._check_count(number)
                filled = self._fill(body, part_bytes)
                more = filled.more
                self._deliver(number, (number - 1) * part_bytes, filled)
            if self._wanted():
                self._all_read(number, confirm)
        finally:
            body.reader.close()

    def _single(self, filled: Filled) -> None:
        """The whole object in one buffer: one request stores it."""
        part = self._part(1, 0, filled)
        try:
            self._checks.whole(part.size_bytes, part.crc32c)
            self._checks.md5(part.data)
            self._checks.structure(part.size_bytes, self._read)
            with self._lock:
                self._whole = (part.size_bytes, part.crc32c)
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
        self._know(source, info)
        parts = Parts(size_bytes, self._begun_with(info) or self._part_size(size_bytes))
        block: Block | None = None
        try:
            self._add_lanes(size_bytes, parts.part_bytes)
            held = self._resume(parts)
            if 1 in held:
                self._checks.first(read_first(reader, size_bytes))
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
                body = Body(opened, len(view), source, SourceUnavailable)
                body.fill(view)
                body.more()

        try:
            self._paced(attempt, _unavailable_or_odd)
            self._answered(info, len(view))
        except BaseException:
            block.release()
            raise
        self._deliver(number, parts.start_of(number), Filled(block, len(view), more=False))
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
    def _part(self, number: int, start: int, filled: Filled) -> FilledPart:
        """The bytes with their checksum; of the first part, once they look right."""
        try:
            view = filled.view
            self._checks.part(start, view)
            return FilledPart(number, filled.size_bytes, crc32c(view), filled.block)
        except BaseException:
            filled.release()
            raise

    def _deliver(self, number: int, start: int, filled: Filled) -> None:
        part = self._part(number, start, filled)
        try:
            with self._lock:
                self._crcs[number] = (part.crc32c, part.size_bytes)
            self._tools.on_bytes(self._request.key, part.size_bytes)
            for lane in self._lanes:
                lane.offer(part)
        finally:
            part.release()

    def _all_read(self, count: int, confirm: Callable[[int, int], None] | None = None) -> None:
        crc = size_bytes = 0
        for number in range(1, count + 1):
            part_crc, part_bytes = self._crcs[number]
            crc = combine(crc, part_crc, part_bytes)
            size_bytes += part_bytes
        self._checks.whole(size_bytes, crc)
        if confirm is not None:
            self._paced(lambda: confirm(size_bytes, crc), _unavailable)
        self._checks.structure(size_bytes, self._read)
        with self._lock:
            self._whole = (size_bytes, crc)
        for lane in self._lanes:
            lane.finish(count, crc)

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
        """End the copy with `error`, unless it is over. What becomes of unfinished uploads: `Ending`. One that still
        sends what was read before an earlier error does not go on when told to stop."""
        ending = self._ending(error)
        with self._lock:
            if self._resolved or (self._error is not None and ending is not Ending.LEAVE):
                return
            self._over = True
            self._error = error if self._error is None else self._error
            ways = self._ways
        for way in ways:
            way.give_up(ending)
        self._resolve(at_once=ending is Ending.LEAVE)

    def _ending(self, error: BaseException) -> Ending:
        if self._tools.stopping() or isinstance(error, LeaseLost | Stopped):
            return Ending.LEAVE
        if isinstance(error, _WORTH_KEEPING):
            return Ending.SEND
        return Ending.DISCARD if isinstance(error, SourceError) else Ending.KEEP

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


def _finish_range(info: SourceInfo, reader: Reader) -> None:
    """Leave an answer of few bytes so that its connection can be used again."""
    if info.ranges:
        with suppress(SourceError):
            measure(reader)
    reader.close()


def _unavailable(error: Exception) -> bool:
    return isinstance(error, SourceUnavailable)


def _unavailable_or_odd(error: Exception) -> bool:
    """One strange answer among thousands of ranges (a 200, HTML from one edge of a CDN) is asked for again; a file
    that changed is not."""
    return isinstance(error, SourceUnavailable | SourceMismatch) and not isinstance(error, SourceChanged)
