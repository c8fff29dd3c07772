"""One object, from its source to its stores: read, checked, then made visible.

Everything that can be checked is checked before a store is told to complete: bytes counted against what the source
announced and what the caller expects, the first bytes, the source's own checksum, the caller's. An object of one part,
as nearly every file of a tree is, takes the straight way here: one GET, the checks, one PUT to each store. Of larger
ones this is the beginning; `transfer.parts_copy` has the rest.

Coroutines, in the engine's thread; what blocks is awaited (`archiver.http.waiting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from archiver.transfer.base import CHECKED_BYTES, CopyRequest, CopyResult, Source, SourceInfo, media_spec
from archiver.transfer.bodies import Body, Filled, fill
from archiver.transfer.checks import Checks
from archiver.transfer.checksums import crc32c
from archiver.transfer.errors import SourceMismatch, SourceUnavailable
from archiver.transfer.part_sizes import part_size, unsuitable
from archiver.transfer.parts_copy import Confirm, PartsCopy, check_structure, checked_part
from archiver.transfer.reading import Answer, Reading
from archiver.transfer.storing import FilledPart
from archiver.transfer.tasks import gather
from archiver.transfer.tools import InReader, Tools, in_source_thread
from archiver.transfer.unframed import SecondRead
from storage_backends.base import ObjectInfo, ObjectSpec, StorageBackend
from storage_backends.errors import StorageError


class ObjectCopy:
    """One copy. `from_source` or `from_body` makes it, once."""

    def __init__(self, request: CopyRequest, stores: Sequence[StorageBackend], tools: Tools) -> None:
        self._request = request
        self._stores = stores
        self._tools = tools
        self._checks = Checks(request)
        self._second_read: SecondRead | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return self._request.key

    async def from_source(self, reading: Reading) -> CopyResult:
        """Raises SourceError, and whatever is no failure of a store."""
        first_bytes = self._part_size(self._request.size_bytes)
        # of a file that another worker has begun, the first part is probably stored already
        likely_bytes = self._request.size_bytes or self._request.likely_bytes or 0
        if likely_bytes > first_bytes and await self._begun_before():
            first_bytes = CHECKED_BYTES
        connections = self._tools.connections
        if not connections.try_take():
            await connections.take()
        held = True
        try:
            taken_bytes = await self._take_bandwidth(first_bytes)
            answer = await self._tools.policy.run(
                partial(self._first_answer, reading, first_bytes), self._tools.is_unavailable
            )
            self._tools.bandwidth.came(answer.coming_bytes, taken_bytes)
            connections.widen()
            info = self._checks.info = answer.info
            if self._checks.unchanged(info):
                return self._unchanged(info)
            if answer.is_first_of_many:
                held = False  # it is the first part's from here on
                return await self._in_parts(reading.source).by_ranges(reading, answer, first_bytes)
            filled = answer.take_filled()
            if filled.more:
                assert answer.body is not None, "more of it is to come"
                verified = self._checks.verifies_whole(info, one_part=False)
                confirm = None if verified else self._confirm(reading.source, first_bytes)
                return await self._in_parts(reading.source).straight(
                    answer.body, filled, in_source_thread, confirm
                )
            if answer.body is not None:
                answer.body.reader.close()
            connections.release()
            held = False
            return await self._in_one_part(filled, reading.source)
        finally:
            if held:
                connections.release()

    async def from_body(self, body: Body, filled: Filled, in_reader: InReader[Filled]) -> CopyResult:
        """Of `body`, whose first part is `filled`. Raises as `from_source`, and what reading the body raises."""
        if filled.more:
            return await self._in_parts(None).straight(body, filled, in_reader)
        body.reader.close()
        return await self._in_one_part(filled, None)

    async def _begun_before(self) -> bool:
        for store in self._stores:
            if await self._tools.stores.load(store.name, self._request.key):
                return True
        return False

    async def _take_bandwidth(self, first_bytes: int) -> int:
        """Wait until the first answer may be read. Return how many bytes were taken for it."""
        request, bandwidth = self._request, self._tools.bandwidth
        size_bytes = (
            CHECKED_BYTES if request.known is not None else request.size_bytes or request.likely_bytes
        )
        if not size_bytes:
            return await bandwidth.take_unknown(first_bytes)
        size_bytes = min(size_bytes, first_bytes)
        await bandwidth.take(size_bytes)
        return size_bytes

    def _part_size(self, size_bytes: int | None) -> int:
        return part_size(size_bytes, self._tools.part_bytes, self._stores)

    def _in_parts(self, source: Source | None) -> PartsCopy:
        return PartsCopy(self._request, self._stores, self._tools, self._checks, source)

    # -- the first answer ----------------------------------------------------------------------------------
    async def _first_answer(self, reading: Reading, first_bytes: int) -> Answer:
        """Whole, when it is small. Where the copy may turn out to be needless, little is asked for before the rest."""
        if self._request.known is None:
            answer = await reading.open(first_bytes)
        else:
            answer = await reading.open(min(first_bytes, CHECKED_BYTES))
            if not self._checks.unchanged(answer.info):
                answer.close()  # what is there is overwritten by nothing that is not certain
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
        info, wanted_bytes = answer.info, self._request.size_bytes
        if info.size_bytes is not None:
            body = Body(answer.reader, info.size_bytes, reading.source, SourceUnavailable)
        else:  # one that ends with its connection and is shorter than expected was probably cut
            short = SourceMismatch if info.framed else SourceUnavailable
            body = Body(answer.reader, wanted_bytes, reading.source, short)
        answer.body = body
        size_bytes = self._part_size(body.expected_bytes)
        if body.expected_bytes is not None:
            size_bytes = min(size_bytes, body.expected_bytes)
        filled = answer.filled = await fill(body, size_bytes, self._tools.memory, in_source_thread)
        if not filled.more and not self._checks.verifies_whole(info, one_part=True):
            self._checks.info = info
            await self._confirm(reading.source, first_bytes)(filled.size_bytes, crc32c(filled.data))

    def _confirm(self, source: Source, first_bytes: int) -> Confirm:
        self._second_read = self._second_read or SecondRead(source, first_bytes)
        assert self._checks.info is not None, "its source has answered"
        return partial(self._second_read.confirm, self._checks.info)

    def _unchanged(self, info: SourceInfo) -> CopyResult:
        known = self._request.known
        assert known is not None, "without it nothing is unchanged"
        return CopyResult(self._request.key, known.size_bytes, known.crc32c, info, {}, {}, unchanged=True)

    # -- one part ------------------------------------------------------------------------------------------
    async def _in_one_part(self, filled: Filled, source: Source | None) -> CopyResult:
        """The whole object in one buffer: one request to each store."""
        request, checks = self._request, self._checks
        part = checked_part(checks, 1, 0, filled)
        size_bytes, crc = part.size_bytes, part.crc32c
        stored: dict[str, ObjectInfo] = {}
        failed: dict[str, StorageError] = {}
        try:
            checks.whole(size_bytes, crc)
            checks.md5(part.data)
            if request.structure is not None:
                await check_structure(checks, source, size_bytes, self._tools.policy)
            self._tools.on_bytes(request.key, size_bytes)
            spec = media_spec(request, size_bytes, 0)
            if len(self._stores) == 1:
                await self._put(self._stores[0], spec, part, stored, failed)
            else:
                puts = [self._put(store, spec, part, stored, failed) for store in self._stores]
                await gather(self._tools.runs, puts)
        finally:
            part.release()
        return CopyResult(request.key, size_bytes, crc, checks.info, stored, failed)

    async def _put(
        self,
        store: StorageBackend,
        spec: ObjectSpec,
        part: FilledPart,
        stored: dict[str, ObjectInfo],
        failed: dict[str, StorageError],
    ) -> None:
        try:
            why = unsuitable(store, spec.size_bytes, spec.part_bytes)
            if why:
                raise StorageError(f"{store.name} cannot hold {spec.key}: {why}")
            stored[store.name] = await self._tools.stores.put(store, spec, part)
        except StorageError as error:
            failed[store.name] = error
