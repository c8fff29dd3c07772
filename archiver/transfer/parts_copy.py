"""The parts of one large object, from its source to its stores: by ranges, several at once, or straight through.

An upload of parts outlives this copy: another worker may have begun it, and another one may resume it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from archiver.http.waiting import blocking
from archiver.ledger.errors import LeaseLost
from archiver.retry_policy import RetryPolicy
from archiver.transfer.base import CopyRequest, CopyResult, Source, SourceInfo, media_spec
from archiver.transfer.bodies import Body, ChunksFailed, Filled, fill
from archiver.transfer.checks import Checks
from archiver.transfer.checksums import combine, crc32c
from archiver.transfer.errors import (
    Preempted,
    RangesUnreliable,
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceMismatch,
    SourceUnavailable,
    Stopped,
    UnexpectedContent,
)
from archiver.transfer.memory import Reservation
from archiver.transfer.part_sizes import Parts, part_size, unsuitable
from archiver.transfer.parts_upload import Ending, PartsUpload
from archiver.transfer.reading import Answer, Reading
from archiver.transfer.storing import FilledPart
from archiver.transfer.tasks import Group, gather
from archiver.transfer.tools import Cancelled, InReader, Tools
from storage_backends.base import Part, StorageBackend
from storage_backends.errors import StorageError

# after these the source may still be read, with what is stored already: it is left for another attempt
_WORTH_KEEPING = (Preempted, SourceUnavailable, SourceForbidden, UnexpectedContent, RangesUnreliable)

Confirm = Callable[[int, int], Awaitable[None]]
"""Asked of a body of so many bytes and such a CRC32C: whether it is whole. Raises SourceUnavailable."""


class _NoStoreLeft(Exception):
    """Every store failed: there is no use in reading on."""


class PartsCopy:
    """One copy of an object of several parts. `by_ranges` or `straight` makes it, once."""

    def __init__(
        self,
        request: CopyRequest,
        stores: Sequence[StorageBackend],
        tools: Tools,
        checks: Checks,
        source: Source | None,
    ) -> None:
        self._request = request
        self._stores = stores
        self._tools = tools
        self._checks = checks
        self._info = checks.info
        self._source = source
        # then a part may hold its memory until the one before it is stored, so that one must get memory first
        self._in_order = not all(store.limits.parallel_parts for store in stores)
        self._uploads: Sequence[PartsUpload] = ()
        self._reads: Group | None = None
        self._defect: BaseException | None = None
        self._crcs: dict[int, tuple[int, int]] = {}  # by part: CRC32C and size
        self._whole: tuple[int, int] | None = None  # size and CRC32C, once everything was read

    @property
    def name(self) -> str:
        """For messages."""
        return self._request.key

    async def straight(
        self,
        body: Body,
        filled: Filled,
        in_reader: InReader[Filled],
        confirm: Confirm | None = None,
    ) -> CopyResult:
        """One part after the other, of a body without ranges or of an unknown length, whose first part is `filled`.
        `confirm` it once it is read."""
        return await self._to_an_end(self._straight(body, filled, in_reader, confirm))

    async def by_ranges(self, reading: Reading, answer: Answer, first_bytes: int) -> CopyResult:
        """In parallel; what every store holds already is not read. Gives the connection of the first answer back."""
        return await self._to_an_end(self._ranged(reading, answer, first_bytes))

    async def _to_an_end(self, copy: Awaitable[CopyResult]) -> CopyResult:
        """Whatever happens, unfinished uploads end as `Ending` says."""
        try:
            return await copy
        except BaseException as error:
            await self._give_up(self._ending(error))
            failure = error.error if isinstance(error, ChunksFailed) else error
            if isinstance(failure, SourceError):
                failure.failed_stores = self._failed()
            raise

    async def _give_up(self, ending: Ending) -> None:
        try:
            if ending is not Ending.LEAVE and self._uploads:
                await gather(self._tools.runs, [upload.give_up(ending) for upload in self._uploads])
        finally:
            for upload in self._uploads:
                upload.leave()

    # -- straight through ----------------------------------------------------------------------------------
    async def _straight(
        self,
        body: Body,
        filled: Filled,
        in_reader: InReader[Filled],
        confirm: Confirm | None,
    ) -> CopyResult:
        try:
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
                    raise Preempted(f"{self.name}: {number} of its parts are read")
                number += 1
                self._check_count(number)
                await self._tools.bandwidth.take(part_bytes)
                filled = await fill(body, part_bytes, self._tools.memory, in_reader)
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

    # -- by ranges -----------------------------------------------------------------------------------------
    async def _ranged(self, reading: Reading, answer: Answer, first_bytes: int) -> CopyResult:
        info = answer.info
        assert info.size_bytes is not None, "it is of several parts"
        size_bytes = info.size_bytes
        pending: Answer | None = answer
        try:
            parts = Parts(
                size_bytes,
                await self._begun_with(info) or part_size(size_bytes, self._tools.part_bytes, self._stores),
            )
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
                    self._tools.connections.release()
                for number in missing:
                    await self._tools.connections.take()
                    if reads.failed or self._tools.should_yield():
                        self._tools.connections.release()
                        break
                    reads.spawn(self._read_part(reading, parts, number))
        except _NoStoreLeft:
            return await self._uploaded()
        finally:
            if pending is not None:
                pending.close()
                self._tools.connections.release()
            self._reads = None
        if len(self._crcs) < parts.count:
            raise Preempted(f"{self.name}: {len(self._crcs)} of its {parts.count} parts are read")
        await self._all_read(parts.count)
        return await self._uploaded()

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
                    if not first.waited:
                        raise
                finally:
                    first.close()
            assert self._info is not None, "it is known before the first part is read"
            if self._in_order:  # even before bandwidth, which is not given in order
                reservation = reservation or await self._tools.memory.reserve(size_bytes)
            await self._tools.bandwidth.take(size_bytes)
            return await reading.range(start, size_bytes, self._info, reservation)

        try:
            filled = await self._tools.policy.run(attempt, self._is_unavailable_or_odd)
        except BaseException:
            if reservation is not None:
                reservation.release()
            raise
        finally:
            self._tools.connections.release()
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
                await upload.restart()
            return {}
        return common

    def _is_unavailable_or_odd(self, error: Exception) -> bool:
        return self._tools.is_unavailable(error) or _unavailable_or_odd(error)

    # -- what was read -------------------------------------------------------------------------------------
    def _deliver(self, number: int, start: int, filled: Filled) -> None:
        part = checked_part(self._checks, number, start, filled)
        try:
            self._crcs[number] = (part.crc32c, part.size_bytes)
            self._tools.on_bytes(self._request.key, part.size_bytes)
            for upload in self._uploads:
                upload.offer(part)
        finally:
            part.release()

    async def _all_read(self, count: int, confirm: Confirm | None = None) -> None:
        crc = size_bytes = 0
        for number in range(1, count + 1):
            part_crc, part_bytes = self._crcs[number]
            crc = combine(crc, part_crc, part_bytes)
            size_bytes += part_bytes
        self._checks.whole(size_bytes, crc)
        if confirm is not None:
            await self._tools.policy.run(lambda: confirm(size_bytes, crc), self._tools.is_unavailable)
        await check_structure(self._checks, self._source, size_bytes, self._tools.policy)
        self._whole = (size_bytes, crc)
        await gather(self._tools.runs, [upload.finish(count, crc) for upload in self._uploads])

    # -- uploads and ends ----------------------------------------------------------------------------------
    def _add_uploads(self, size_bytes: int | None, part_bytes: int) -> None:
        request, etag = self._request, self._info.etag if self._info else None
        spec = media_spec(request, size_bytes, part_bytes)
        self._uploads = [
            PartsUpload(store, spec, etag, self._tools.stores, self._store_failed, self._found_defect)
            for store in self._stores
        ]
        for upload in self._uploads:
            why = unsuitable(upload.store, spec.size_bytes, spec.part_bytes)
            if why:
                upload.fail(StorageError(f"{upload.store.name} cannot hold {self.name}: {why}"))

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
        """Wait until every upload has ended."""
        await gather(self._tools.runs, [upload.close() for upload in self._uploads])
        if self._defect is not None:
            raise self._defect
        await gather(self._tools.runs, [upload.settle() for upload in self._uploads])
        size_bytes, crc = self._whole or ((self._info.size_bytes if self._info else None) or 0, 0)
        return CopyResult(
            key=self._request.key,
            size_bytes=size_bytes,
            crc32c=crc,
            source=self._info,
            stored={upload.store.name: upload.info for upload in self._uploads if upload.info is not None},
            failed=self._failed(),
        )

    def _failed(self) -> dict[str, StorageError]:
        return {upload.store.name: upload.error for upload in self._uploads if upload.error is not None}

    def _ending(self, error: BaseException) -> Ending:
        if isinstance(error, LeaseLost | Stopped | Cancelled) and not isinstance(error, Preempted):
            return Ending.LEAVE
        if isinstance(error, _WORTH_KEEPING):
            return Ending.SEND
        return Ending.DISCARD if isinstance(error, SourceError) else Ending.KEEP


def checked_part(checks: Checks, number: int, start: int, filled: Filled) -> FilledPart:
    """Check the bytes and add their checksum; those of the first part must look right. Raises SourceMismatch."""
    try:
        checks.part(start, filled.data)
        crc = crc32c(filled.data) if filled.crc32c is None else filled.crc32c
    except BaseException:
        filled.release()
        raise
    return FilledPart(number, filled.data, filled.size_bytes, crc, filled.reservation)


async def check_structure(
    checks: Checks, source: Source | None, size_bytes: int, policy: RetryPolicy
) -> None:
    """Check the container, once all of it has arrived. Some of it may be read again, where the source has ranges."""
    structure = checks.structure
    if structure is None:
        return
    info, read = checks.info, None
    if source is not None and info is not None and info.ranges:
        read = partial(_read_again, policy, source, info)
    await blocking(lambda: structure.finish(size_bytes, read), "source")


def _read_again(policy: RetryPolicy, source: Source, info: SourceInfo, start: int, into: memoryview) -> None:
    policy.call(lambda: source.read_range(start, into, info), _unavailable_or_odd)


def _unavailable_or_odd(error: Exception) -> bool:
    """One strange answer among thousands of ranges (a 200, HTML from one edge of a CDN) is asked for again; a file
    that changed is not."""
    return isinstance(error, SourceUnavailable | SourceMismatch) and not isinstance(error, SourceChanged)
