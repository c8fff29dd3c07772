"""One object, from its source to its stores: read by ranges or straight through, checked, then made visible.

Everything that can be checked is checked before a store is told to complete: bytes counted against what the source
announced and what the caller expects, the first bytes, the source's own checksum, the caller's.

Coroutines, in the engine's thread; what blocks is awaited (`archiver.http.waiting`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from archiver.http.waiting import Wait, blocking
from archiver.ledger.errors import LeaseLost
from archiver.retry_policy import RetryPolicy
from archiver.transfer.base import CHECKED_BYTES, CopyRequest, CopyResult, Source, SourceInfo
from archiver.transfer.bodies import Body, Filled, measure
from archiver.transfer.checks import Checks
from archiver.transfer.checksums import combine, crc32c
from archiver.transfer.errors import (
    HandedBack,
    RangesUnreliable,
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceMismatch,
    SourceUnavailable,
    Stopped,
    UnexpectedContent,
)
from archiver.transfer.memory import MemoryBudget, Reservation
from archiver.transfer.part_sizes import Parts, part_size, unsuitable
from archiver.transfer.reading import Answer, Reading
from archiver.transfer.storing import Ending, FilledPart, PartsUpload, StoreTools
from archiver.transfer.tasks import Group, Runs, Slots, gather
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, Part, StorageBackend
from storage_backends.errors import StorageError

# after these the source may still be read, with what is stored already: it is left for another attempt
_WORTH_KEEPING = (HandedBack, SourceUnavailable, SourceForbidden, UnexpectedContent, RangesUnreliable)

T = TypeVar("T")
InReader = Callable[[Callable[[], T]], Awaitable[T]]
"""Where a body may be read, which blocks: a thread for it, or the one that gave the chunks."""


class _NoStoreLeft(Exception):
    """Every store failed: there is no use in reading on."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What all copies of an engine share."""

    runs: Runs
    stores: StoreTools
    memory: MemoryBudget
    connections: Slots  # requests to sources at once
    policy: RetryPolicy
    part_bytes: int
    on_bytes: Callable[[ObjectKey, int], None]
    should_yield: Callable[[], bool]  # whether to begin no more parts


class ObjectCopy:
    """One copy. `from_source` or `from_body` makes it, once."""

    def __init__(self, request: CopyRequest, stores: Sequence[StorageBackend], tools: Tools) -> None:
        self._request = request
        self._stores = stores
        self._tools = tools
        self._checks = Checks(request)
        self._info: SourceInfo | None = None
        self._source: Source | None = None
        self._uploads: Sequence[PartsUpload] = ()
        self._reads: Group | None = None
        self._defect: BaseException | None = None
        self._crcs: dict[int, tuple[int, int]] = {}  # by part: CRC32C and size
        self._longest_bytes = 0  # that a body without framing was seen to have
        self._whole: tuple[int, int] | None = None  # size and CRC32C, once everything was read

    @property
    def name(self) -> str:
        """For messages."""
        return self._request.key

    # -- two ways to begin ---------------------------------------------------------------------------------
    def from_source(self, reading: Reading) -> Coroutine[Wait[Any], Any, CopyResult]:
        """Raises SourceError, and whatever is no failure of a store."""
        return self._to_an_end(self._from_source(reading))

    def from_body(
        self, body: Body, filled: Filled, in_reader: InReader[Filled]
    ) -> Coroutine[Wait[Any], Any, CopyResult]:
        """Of `body`, whose first part is `filled`. Raises as `from_source`, and what reading the body raises."""
        return self._to_an_end(self._straight(body, filled, in_reader))

    async def _to_an_end(self, copy: Awaitable[CopyResult]) -> CopyResult:
        """Whatever happens, unfinished uploads end as `Ending` says."""
        try:
            return await copy
        except BaseException as error:
            await self._give_up(self._ending(error))
            raise

    async def _give_up(self, ending: Ending) -> None:
        try:
            if ending is not Ending.LEAVE and self._uploads:
                await gather(self._tools.runs, [upload.give_up(ending) for upload in self._uploads])
        finally:
            for upload in self._uploads:
                upload.leave()

    # -- the first answer ----------------------------------------------------------------------------------
    async def _from_source(self, reading: Reading) -> CopyResult:
        wanted_bytes = self._part_size(self._request.size_bytes)
        # of a file that another worker has begun, the first part is probably stored already
        likely_bytes = self._request.size_bytes or self._request.likely_bytes or 0
        begun = likely_bytes > wanted_bytes and await self._begun_before()
        first_bytes = CHECKED_BYTES if begun else wanted_bytes
        connections = self._tools.connections
        if not connections.try_take():
            await connections.take()
        held = True
        try:
            answer = await self._tools.policy.run(
                partial(self._first_answer, reading, first_bytes), self._is_unavailable
            )
            connections.widen()
            info = answer.info
            if self._checks.unchanged(info):
                return self._unchanged(info)
            self._know(reading.source, info)
            if answer.is_first_of_many:
                assert info.size_bytes is not None
                held = False  # it is the first part's from here on
                return await self._ranged(reading, answer, info.size_bytes, first_bytes)
            if answer.body is not None:
                confirm = partial(self._confirm, reading.source, info, first_bytes)
                needed = not self._checks.proves_whole(info, one_part=False)
                return await self._straight(
                    answer.body, answer.take_filled(), in_source_thread, confirm if needed else None
                )
            connections.give_back()
            held = False
            return await self._single(answer.take_filled())
        finally:
            if held:
                connections.give_back()

    async def _first_answer(self, reading: Reading, first_bytes: int) -> Answer:
        """Whole, when it is small. Where the copy may turn out to be needless, little is asked for before the rest."""
        little = min(first_bytes, CHECKED_BYTES) if self._request.known is not None else first_bytes
        answer = await reading.open(little)
        if self._request.known is not None and not self._checks.unchanged(answer.info):
            answer.close()  # what is there is written over by nothing that is not certain
            reading.be_certain()
            answer = await reading.open(first_bytes)
        if self._checks.unchanged(answer.info):
            answer.close()
            return answer
        try:
            self._checks.size(answer.info.size_bytes)
            if answer.reader is not None and not answer.is_first_of_many:
                await self._read_first_part(reading, answer, first_bytes)
        except BaseException:
            answer.close()
            raise
        return answer

    async def _read_first_part(self, reading: Reading, answer: Answer, first_bytes: int) -> None:
        assert answer.reader is not None
        info, wanted = answer.info, self._request.size_bytes
        if info.size_bytes is not None:
            body = Body(answer.reader, info.size_bytes, reading.source, SourceUnavailable)
        else:  # one that ends with its connection and is shorter than expected was probably cut
            body = Body(
                answer.reader, wanted, reading.source, SourceMismatch if info.framed else SourceUnavailable
            )
        answer.body = body
        answer.filled = await self._fill(body, self._first_size(body), in_source_thread)
        if not answer.filled.more and not self._checks.proves_whole(info, one_part=True):
            filled = answer.filled
            await self._confirm(reading.source, info, first_bytes, filled.size_bytes, crc32c(filled.data))

    def _unchanged(self, info: SourceInfo) -> CopyResult:
        known = self._request.known
        assert known is not None, "without it nothing is unchanged"
        return CopyResult(self._request.key, known.size_bytes, known.crc32c, info, {}, {}, unchanged=True)

    def _know(self, source: Source, info: SourceInfo) -> None:
        self._source, self._info = source, info
        self._checks.info = info

    async def _confirm(
        self, source: Source, info: SourceInfo, first_bytes: int, size_bytes: int, crc: int
    ) -> None:
        """Read a body that ends with its connection once more, and nothing of it is kept: a cut looks like the end.
        Raises SourceUnavailable when it is another body, and always when a longer one was seen."""

        def again() -> tuple[int, bool]:
            told, reader = source.open(first_bytes)
            if told.ranges and told.size_bytes is not None and told.size_bytes > first_bytes:
                reader.close()  # this time the length is told, and that is proof enough
                return told.size_bytes, told.etag == info.etag
            found_bytes, found_crc = measure(reader)
            return found_bytes, found_crc == crc

        if self._longest_bytes <= size_bytes:
            found_bytes, same = await in_source_thread(again)
            self._longest_bytes = max(self._longest_bytes, size_bytes, found_bytes)
            if same and found_bytes == size_bytes:
                return
        raise SourceUnavailable(
            f"{source.name} gives no length, and what was read of it differs: {size_bytes} bytes, then others"
        )

    async def _begun_before(self) -> bool:
        for store in self._stores:
            if await self._tools.stores.load(store.name, self._request.key):
                return True
        return False

    def _part_size(self, size_bytes: int | None) -> int:
        return part_size(size_bytes, self._tools.part_bytes, self._stores)

    async def _begun_with(self, info: SourceInfo) -> int | None:
        """The part size of an upload of this very file that another worker began, where it suits all stores: a new
        version with another part size resumes it all the same."""
        for store in self._stores:
            saved = await self._tools.stores.load(store.name, self._request.key)
            if saved is None or (saved.size_bytes, saved.source_etag) != (info.size_bytes, info.etag):
                continue
            fits = saved.part_bytes <= self._tools.memory.limit_bytes
            if fits and part_size(saved.size_bytes, saved.part_bytes, self._stores) == saved.part_bytes:
                return saved.part_bytes
        return None

    # -- one part ------------------------------------------------------------------------------------------
    async def _single(self, filled: Filled) -> CopyResult:
        """The whole object in one buffer: one request to each store."""
        part = self._part(1, 0, filled)
        try:
            self._checks.whole(part.size_bytes, part.crc32c)
            self._checks.md5(part.data)
            if self._request.structure is not None:
                await self._check_structure(part.size_bytes)
            self._whole = (part.size_bytes, part.crc32c)
            self._tools.on_bytes(self._request.key, part.size_bytes)
            spec = self._spec(part.size_bytes, 0)
            stored: dict[str, ObjectInfo] = {}
            failed: dict[str, StorageError] = {}
            puts = [self._put(store, spec, part, stored, failed) for store in self._stores]
            if len(puts) == 1:
                await puts[0]
            else:
                await gather(self._tools.runs, puts)
        finally:
            part.release()
        return self._result(stored, failed)

    async def _put(
        self,
        store: StorageBackend,
        spec: ObjectSpec,
        part: FilledPart,
        stored: dict[str, ObjectInfo],
        failed: dict[str, StorageError],
    ) -> None:
        why = unsuitable(store, spec.size_bytes, spec.part_bytes)
        try:
            if why:
                raise StorageError(f"{store.name} cannot hold {self.name}: {why}")
            stored[store.name] = await self._tools.stores.put(store, spec, part)
        except StorageError as error:
            failed[store.name] = error

    # -- several parts, straight through -------------------------------------------------------------------
    def _first_size(self, body: Body) -> int:
        bound = self._part_size(body.expected_bytes)
        return bound if body.expected_bytes is None else min(bound, body.expected_bytes)

    async def _fill(self, body: Body, size_bytes: int, in_reader: InReader[Filled]) -> Filled:
        reservation = await self._tools.memory.reserve(size_bytes) if size_bytes else None
        try:
            return await in_reader(lambda: body.take(size_bytes, reservation))
        except BaseException:
            if reservation is not None:
                reservation.release()
            raise

    async def _straight(
        self,
        body: Body,
        filled: Filled,
        in_reader: InReader[Filled],
        confirm: Callable[[int, int], Awaitable[None]] | None = None,
    ) -> CopyResult:
        """One part after the other: no ranges, an unknown length, or a single part. `confirm` the length and CRC32C of
        several parts; those of one are certain."""
        try:
            if not filled.more:
                return await self._single(filled)
            part_bytes = filled.size_bytes  # the first of several is full
            try:
                self._add_uploads(body.expected_bytes, part_bytes)
                # saves sending, not reading
                await self._resume(Parts(body.expected_bytes or 0, part_bytes))
            except BaseException:
                filled.release()
                raise
            number, more = 1, True
            self._deliver(number, 0, filled)
            while more and self._wanted():
                if self._tools.should_yield():
                    raise HandedBack(f"{self.name}: {number} of its parts are read")
                number += 1
                self._check_count(number)
                filled = await self._fill(body, part_bytes, in_reader)
                more = filled.more
                self._deliver(number, (number - 1) * part_bytes, filled)
        finally:
            body.reader.close()
        if self._wanted():
            await self._all_read(number, confirm)
        return await self._uploaded()

    def _check_count(self, number: int) -> None:
        """Only for a length that was not known: else the parts were made large enough."""
        for upload in self._uploads:
            if number > upload.store.limits.max_parts:
                upload.fail(
                    StorageError(
                        f"{upload.store.name}: {self.name} has an unknown length and more than "
                        f"{upload.store.limits.max_parts} parts; larger parts are needed"
                    )
                )

    # -- several parts, by ranges --------------------------------------------------------------------------
    async def _ranged(
        self, reading: Reading, answer: Answer, size_bytes: int, first_bytes: int
    ) -> CopyResult:
        """Several parts, read in parallel; those that every store holds already are not read. Gives the connection of
        the first answer back."""
        info = answer.info
        pending: Answer | None = answer
        try:
            parts = Parts(size_bytes, await self._begun_with(info) or self._part_size(size_bytes))
            self._add_uploads(size_bytes, parts.part_bytes)
            held = await self._resume(parts)
            if 1 in held:
                self._checks.first(await reading.first_bytes(answer))
            missing = [number for number in parts.numbers if number not in held]
            self._crcs = {number: (part.crc32c, part.size_bytes) for number, part in held.items()}
            if held:
                self._tools.on_bytes(self._request.key, sum(part.size_bytes for part in held.values()))
            async with Group(self._tools.runs) as reads:
                self._reads = reads
                if missing[:1] == [1] and first_bytes == parts.part_bytes:
                    pending = None  # the first part is on its way already
                    reads.spawn(self._read_part(reading, parts, 1, answer))
                    missing = missing[1:]
                else:
                    pending = None
                    answer.close()
                    self._tools.connections.give_back()
                for number in missing:
                    await self._tools.connections.take()
                    if reads.failed or self._tools.should_yield():
                        self._tools.connections.give_back()
                        break
                    reads.spawn(self._read_part(reading, parts, number))
        except _NoStoreLeft:
            return await self._uploaded()
        finally:
            if pending is not None:
                pending.close()
                self._tools.connections.give_back()
            self._reads = None
        if len(self._crcs) < parts.count:
            raise HandedBack(f"{self.name}: {len(self._crcs)} of its {parts.count} parts are read")
        await self._all_read(parts.count)
        return await self._uploaded()

    async def _read_part(
        self, reading: Reading, parts: Parts, number: int, answer: Answer | None = None
    ) -> None:
        """Part `number`, over a connection that was taken for it; from `answer`, whose first part is on its way, if
        there is one, and by its range if that fails."""
        start, size_bytes = parts.start_of(number), parts.size_of(number)
        reservation: Reservation | None = None

        async def attempt() -> Filled:
            nonlocal answer, reservation
            first, answer = answer, None
            if first is not None:
                try:
                    return await reading.first_part(first, size_bytes)
                except SourceError:
                    reservation = await first.take_reservation()
                    raise
                finally:
                    first.close()
            assert self._info is not None, "it is known before the first part is read"
            reservation = reservation or await self._tools.memory.reserve(size_bytes)
            return Filled(await reading.range(start, self._info, reservation), reservation)

        try:
            filled = await self._tools.policy.run(attempt, self._is_unavailable_or_odd)
        except BaseException:
            if reservation is not None:
                reservation.release()
            raise
        finally:
            self._tools.connections.give_back()
        self._tools.connections.widen()
        self._deliver(number, start, filled)

    async def _resume(self, parts: Parts) -> dict[int, Part]:
        """Resume where another worker stopped, or begin; the parts that every store holds."""
        saved = {upload: await upload.saved() for upload in self._uploads if upload.open}
        resumed: dict[PartsUpload, Mapping[int, Part]] = {}
        for upload, known in saved.items():
            if known is not None:
                resumed[upload] = await upload.resume(known, parts.size_of)
        fresh = [upload for upload, known in saved.items() if known is None]
        for upload in fresh:
            upload.begin()
        held = [found for upload, found in resumed.items() if upload.open]
        if not held or any(upload.open for upload in fresh):
            return {}
        common = {n: part for n, part in held[0].items() if all(n in other for other in held)}
        if any(other[n].crc32c != part.crc32c for n, part in common.items() for other in held):
            for upload in resumed:  # they cannot all be right, and which is cannot be known
                await upload.begin_anew()
            return {}
        return common

    def _is_unavailable(self, error: Exception) -> bool:
        if not isinstance(error, SourceUnavailable):
            return False
        if error.throttled:  # 429 or 503
            self._tools.connections.narrow()
        return True

    def _is_unavailable_or_odd(self, error: Exception) -> bool:
        return self._is_unavailable(error) or _unavailable_or_odd(error)

    # -- what was read -------------------------------------------------------------------------------------
    def _part(self, number: int, start: int, filled: Filled) -> FilledPart:
        """The bytes with their checksum; of the first part, once they look right."""
        try:
            self._checks.part(start, memoryview(filled.data))
            crc = crc32c(filled.data) if filled.crc32c is None else filled.crc32c
        except BaseException:
            filled.release()
            raise
        return FilledPart(number, filled.data, filled.size_bytes, crc, filled.reservation)

    def _deliver(self, number: int, start: int, filled: Filled) -> None:
        part = self._part(number, start, filled)
        try:
            self._crcs[number] = (part.crc32c, part.size_bytes)
            self._tools.on_bytes(self._request.key, part.size_bytes)
            for upload in self._uploads:
                upload.offer(part)
        finally:
            part.release()

    async def _all_read(
        self, count: int, confirm: Callable[[int, int], Awaitable[None]] | None = None
    ) -> None:
        crc = size_bytes = 0
        for number in range(1, count + 1):
            part_crc, part_bytes = self._crcs[number]
            crc = combine(crc, part_crc, part_bytes)
            size_bytes += part_bytes
        self._checks.whole(size_bytes, crc)
        if confirm is not None:
            await self._tools.policy.run(lambda: confirm(size_bytes, crc), self._is_unavailable)
        await self._check_structure(size_bytes)
        self._whole = (size_bytes, crc)
        await gather(self._tools.runs, [upload.finish(count, crc) for upload in self._uploads])

    async def _check_structure(self, size_bytes: int) -> None:
        if self._request.structure is not None:  # it may read some of it again
            read = self._read_again if self._info is not None and self._info.ranges else None
            await blocking(lambda: self._checks.structure(size_bytes, read), "source")

    def _read_again(self, start: int, into: memoryview) -> None:
        """Any bytes of the source; blocks."""
        source, info = self._source, self._info
        assert source is not None, "it is known"
        assert info is not None, "it is known"
        self._tools.policy.call(lambda: source.read_range(start, into, info), _unavailable_or_odd)

    # -- uploads and ends ----------------------------------------------------------------------------------
    def _add_uploads(self, size_bytes: int | None, part_bytes: int) -> None:
        spec, etag = self._spec(size_bytes, part_bytes), self._info.etag if self._info else None
        self._uploads = [
            PartsUpload(store, spec, etag, self._tools.stores, self._store_failed, self._found_defect)
            for store in self._stores
        ]
        for upload in self._uploads:
            why = unsuitable(upload.store, spec.size_bytes, spec.part_bytes)
            if why:
                upload.fail(StorageError(f"{upload.store.name} cannot hold {self.name}: {why}"))

    def _spec(self, size_bytes: int | None, part_bytes: int) -> ObjectSpec:
        request = self._request
        return ObjectSpec(request.key, request.content_type, size_bytes, part_bytes, request.metadata)

    def _wanted(self) -> bool:
        if self._defect is not None:
            raise self._defect
        return any(upload.open for upload in self._uploads)

    def _store_failed(self) -> None:
        if self._reads is not None and not any(upload.open for upload in self._uploads):
            self._reads.fail(_NoStoreLeft())

    def _found_defect(self, error: BaseException) -> None:
        """What is no failure of a store: of this machine, of ours, or a lost lease."""
        self._defect = self._defect or error
        for upload in self._uploads:
            upload.begin_no_more()
        if self._reads is not None:
            self._reads.fail(error)

    async def _uploaded(self) -> CopyResult:
        """When every upload has ended."""
        await gather(self._tools.runs, [upload.close() for upload in self._uploads])
        if self._defect is not None:
            raise self._defect
        return self._result(
            {upload.store.name: upload.info for upload in self._uploads if upload.info is not None},
            {upload.store.name: upload.error for upload in self._uploads if upload.error is not None},
        )

    def _ending(self, error: BaseException) -> Ending:
        if isinstance(error, LeaseLost | Stopped | Cancelled) and not isinstance(error, HandedBack):
            return Ending.LEAVE
        if isinstance(error, _WORTH_KEEPING):
            return Ending.SEND
        return Ending.DISCARD if isinstance(error, SourceError) else Ending.KEEP

    def _result(self, stored: Mapping[str, ObjectInfo], failed: Mapping[str, StorageError]) -> CopyResult:
        size_bytes, crc = self._whole or ((self._info.size_bytes if self._info else None) or 0, 0)
        return CopyResult(
            key=self._request.key,
            size_bytes=size_bytes,
            crc32c=crc,
            source=self._info,
            stored=stored,
            failed=failed,
        )


class Cancelled(Exception):
    """Raised in a copy that is to end at once. `cause`: what is in its future."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


def in_source_thread(call: Callable[[], T]) -> Awaitable[T]:
    """An `InReader`."""
    return blocking(call, "source")


def _unavailable_or_odd(error: Exception) -> bool:
    """One strange answer among thousands of ranges (a 200, HTML from one edge of a CDN) is asked for again; a file
    that changed is not."""
    return isinstance(error, SourceUnavailable | SourceMismatch) and not isinstance(error, SourceChanged)
