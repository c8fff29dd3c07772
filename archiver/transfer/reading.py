"""How the engine reads a source: over HTTP by its own loops, any other in threads that may block."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from archiver.http.runtime import Runs
from archiver.http.session import Session
from archiver.http.transfer import Transfer
from archiver.http.waiting import blocking
from archiver.transfer.base import CHECKED_BYTES, Reader, Source, SourceInfo
from archiver.transfer.bodies import Body, Filled, filled_bytes
from archiver.transfer.checksums import Crc32c, crc32c
from archiver.transfer.confirmations import Confirmations
from archiver.transfer.errors import SourceMismatch, SourceUnavailable
from archiver.transfer.http import Transfers
from archiver.transfer.intake import Intake
from archiver.transfer.memory import MemoryBudget, Reservation
from archiver.transfer.source import HttpSource, Opened
from storage_backends.base import ObjectKey

T = TypeVar("T")


@dataclass(slots=True)
class Answer:
    """The first answer of a source. `filled`: all of a small file, or the first part of a `body`. `rest`: the first
    part of a large one is on its way. `reader`: it is still to be read."""

    info: SourceInfo
    first_bytes: int
    filled: Filled | None = None
    body: Body | None = None
    rest: Transfer | None = None
    intake: Intake | None = None  # of `rest`
    reader: Reader | None = None
    redirects: Sequence[Transfer] = ()  # that led to it
    reservation: Reservation | None = None  # for the first part, where `reader` gives it

    @property
    def is_first_of_many(self) -> bool:
        """Return whether the rest is to be read by ranges."""
        size_bytes = self.info.size_bytes
        return self.info.ranges and size_bytes is not None and size_bytes > self.first_bytes

    @property
    def coming_bytes(self) -> int:
        """Return how many bytes are here or on their way."""
        if self.filled is not None:
            return self.filled.size_bytes
        return self.first_bytes if self.is_first_of_many else 0

    def take_filled(self) -> Filled:
        filled, self.filled = self.filled, None
        assert filled is not None
        return filled

    def close(self) -> None:
        """What was not taken is not wanted."""
        if self.filled is not None:
            self.filled.release()
        if self.rest is not None:
            self.rest.cancel()
        if self.reader is not None:
            self.reader.close()
        if self.intake is not None:
            self.intake.give_up()
        if self.reservation is not None:
            self.reservation.release()

    @property
    def waited(self) -> bool:
        """Return whether the first part waited for memory, so that its failure says nothing of the source."""
        return self.intake is not None and self.intake.waited

    async def take_reservation(self) -> Reservation | None:
        """The memory of a first part that did not come whole, for the next try. Parts after it may hold all the rest
        until it is stored: without its place in the queue it would wait for them, and they for it."""
        reservation, self.reservation = self.reservation, None
        if reservation is None and self.intake is not None:
            return await self.intake.reserved()
        return reservation


class Reading(Protocol):
    @property
    def source(self) -> Source: ...

    async def open(self, first_bytes: int) -> Answer:
        """As `Source.open`."""
        ...

    def be_certain(self) -> None:
        """From here on, take no response that could be another request's."""
        ...

    async def range(
        self, start: int, size_bytes: int, info: SourceInfo, reservation: Reservation | None = None
    ) -> Filled:
        """As `Source.read_range`. In `reservation`, which stays the caller's when this raises; without one, memory is
        reserved when there is something to put there."""
        ...

    async def first_part(self, answer: Answer, size_bytes: int) -> Filled:
        """The first part of a large file, out of its first answer. Close that afterwards."""
        ...

    async def first_bytes(self, answer: Answer) -> bytes:
        """The first CHECKED_BYTES of a large file, out of its first answer, which is of no use afterwards."""
        ...


class BlockingReading:
    """Of any source: in threads."""

    def __init__(self, source: Source, memory: MemoryBudget) -> None:
        self.source = source
        self._memory = memory

    def be_certain(self) -> None:
        return

    async def open(self, first_bytes: int) -> Answer:
        info, reader = await blocking(lambda: self.source.open(first_bytes), "source")
        return Answer(info, first_bytes, reader=reader)

    async def range(
        self, start: int, size_bytes: int, info: SourceInfo, reservation: Reservation | None = None
    ) -> Filled:
        def fill(into: memoryview) -> int:
            self.source.read_range(start, into, info)
            return len(into)

        memory = reservation or await self._memory.reserve(size_bytes)
        try:
            return Filled(await blocking(lambda: filled_bytes(size_bytes, fill, memory), "source"), memory)
        except BaseException:
            if reservation is None:
                memory.release()
            raise

    async def first_part(self, answer: Answer, size_bytes: int) -> Filled:
        reader = answer.reader
        assert reader is not None
        body = Body(reader, size_bytes, self.source, SourceUnavailable)
        reservation = answer.reservation = await self._memory.reserve(size_bytes)
        filled = await blocking(lambda: body.take(size_bytes, reservation), "source")
        answer.reservation = None
        return filled

    async def first_bytes(self, answer: Answer) -> bytes:
        size_bytes = min(CHECKED_BYTES, answer.first_bytes, answer.info.size_bytes or 0)
        reader = answer.reader
        assert reader is not None

        def read() -> bytes:
            data = bytearray(size_bytes)
            Body(reader, size_bytes, self.source, SourceUnavailable).fill(memoryview(data))
            return bytes(data)

        return await blocking(read, "source")


class HttpReading:
    """Of one HTTP source, for the object `key`, over the engine's connections."""

    def __init__(
        self,
        source: HttpSource,
        key: ObjectKey,
        session: Session | None,
        memory: MemoryBudget,
        confirmations: Confirmations,
        runs: Runs,
    ) -> None:
        """`session`: None to `be_certain` from the start."""
        self.source = source
        self._key = key
        self._session = session
        self._memory = memory
        self._confirmations = confirmations
        self._runs = runs
        self._reserves_first = False  # before a request is sent, because memory came late once

    def be_certain(self) -> None:
        # then a request goes over a new connection, or its answer names what was asked for
        self._session = None

    async def open(self, first_bytes: int) -> Answer:
        def fetch(intake: Intake) -> Awaitable[tuple[Opened, Transfers]]:
            return self.source.fetch(first_bytes, self._session, intake)

        (opened, transfers), intake = await self._in_memory(fetch)
        if opened.body is not None:
            crc = self._arrived(transfers, opened.body)
            return Answer(opened.info, first_bytes, intake.filled(opened.body, crc))
        reader = opened.reader
        if reader is not None and self._session is not None:
            reader = Measured(reader, partial(self._read_to_its_end, transfers))
        return Answer(
            opened.info, first_bytes, rest=opened.rest, intake=intake, reader=reader, redirects=transfers[:-1]
        )

    async def range(
        self, start: int, size_bytes: int, info: SourceInfo, reservation: Reservation | None = None
    ) -> Filled:
        unique = self._confirmations.ask(start, size_bytes, info.size_bytes)

        def fetch(intake: Intake) -> Awaitable[tuple[bytes, Transfers]]:
            return self.source.fetch_range(start, size_bytes, info, self._session, intake)

        if reservation is None:
            (data, transfers), intake = await self._in_memory(fetch, size_bytes)
        else:
            intake = Intake(self._memory, self._runs, reservation)
            try:
                data, transfers = await fetch(intake)
            except BaseException:
                intake.take()
                intake.give_up()  # or a head that comes before it is cancelled would reserve more
                raise
        self._arrived(transfers[:-1] if unique else transfers, data, start, info)
        if unique and self._session is not None:
            self._confirmations.confirmed(transfers[-1])
        return intake.filled(data)

    async def _in_memory(
        self, fetch: Callable[[Intake], Awaitable[T]], size_bytes: int = 0
    ) -> tuple[T, Intake]:
        """What `fetch` gives, and the memory that its body is in: reserved once the response is there, for until then
        others can use it. Where it waits too long, for us or for its source, it is requested again once there is
        memory: then so are those after it, if they say beforehand that they need `size_bytes`."""
        reservation: Reservation | None = None
        while True:
            if reservation is None and size_bytes and self._reserves_first:
                reservation = await self._memory.reserve(size_bytes)
            intake = Intake(self._memory, self._runs, reservation)
            try:
                try:
                    found = await fetch(intake)
                    intake.keep_what_is_used()
                    return found, intake
                except SourceUnavailable:
                    if not intake.waited or reservation is not None:  # which was for another length
                        raise
                self._reserves_first = True
                reservation = await intake.reserved()
            except BaseException:
                intake.give_up()
                raise

    async def first_part(self, answer: Answer, size_bytes: int) -> Filled:
        if answer.filled is not None:  # it came whole in the meantime
            return answer.take_filled()
        data = await self._rest(answer)
        if len(data) != size_bytes:
            raise SourceUnavailable(
                f"{self.source.name}: the body ended {size_bytes - len(data)} bytes early"
            )
        assert answer.intake is not None
        return answer.intake.filled(data)

    async def first_bytes(self, answer: Answer) -> bytes:
        if answer.filled is not None:
            return answer.filled.data[:CHECKED_BYTES]
        try:
            return (await self._rest(answer))[:CHECKED_BYTES]
        except SourceUnavailable:
            if not answer.waited:
                raise
        reservation = answer.reservation = await answer.take_reservation()
        return (await self.range(0, answer.coming_bytes, answer.info, reservation)).data[:CHECKED_BYTES]

    async def _rest(self, answer: Answer) -> bytes:
        transfer = answer.rest
        assert transfer is not None, "a first range is taken whole, not read while it comes"
        data = await self.source.rest(transfer)
        self._arrived((*answer.redirects, transfer), data)
        return data

    def _arrived(
        self, transfers: Sequence[Transfer], data: bytes, start: int = 0, info: SourceInfo | None = None
    ) -> int | None:
        """The CRC32C, where it was needed. `info` is given for a range that is not the first."""
        if self._session is None or all(transfer.ordinal == 1 for transfer in transfers):
            return None
        size_bytes, crc = len(data), crc32c(data)
        self._confirmations.arrived(
            transfers, self._key, crc, partial(self._read_again, start, size_bytes, info)
        )
        return crc

    def _read_to_its_end(self, transfers: Sequence[Transfer], size_bytes: int, crc: int) -> None:
        """In the thread that read it."""
        again = partial(self._read_again, 0, size_bytes, None)
        self._runs.call_soon(lambda: self._confirmations.arrived(transfers, self._key, crc, again))

    async def _read_again(self, start: int, size_bytes: int, info: SourceInfo | None) -> int:
        """The CRC32C of these bytes, over a new connection."""
        if info is not None:
            reservation = await self._memory.reserve(size_bytes)
            try:
                return crc32c((await self.source.fetch_range(start, size_bytes, info))[0])
            finally:
                reservation.release()
        found_bytes, crc = await self.source.measure(max(1, size_bytes))
        if found_bytes != size_bytes:
            raise SourceMismatch(f"{self.source.name} had {size_bytes} bytes, and then {found_bytes}")
        return crc


class Measured:
    """A reader that tells the length and CRC32C of the whole body at its end."""

    def __init__(self, reader: Reader, at_end: Callable[[int, int], None]) -> None:
        self._reader = reader
        self._at_end: Callable[[int, int], None] | None = at_end
        self._size_bytes = 0
        self._crc = Crc32c()

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._reader.readinto(buffer)
        if count:
            self._size_bytes += count
            self._crc.update(buffer[:count])
        elif len(buffer) and self._at_end is not None:
            self._at_end(self._size_bytes, self._crc.value)
            self._at_end = None
        return count

    def close(self) -> None:
        self._reader.close()
