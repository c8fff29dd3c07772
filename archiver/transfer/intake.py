"""How a response waits for memory that its body is to be in."""

from __future__ import annotations

from archiver.http.errors import HttpError
from archiver.http.loop import Timer
from archiver.http.runtime import Runs
from archiver.http.transfer import Transfer, Write
from archiver.transfer.bodies import Filled
from archiver.transfer.checksums import Crc32c
from archiver.transfer.memory import Asked, MemoryBudget, Reservation
from archiver.transfer.tasks import Gate

PATIENCE_SECONDS = 10.0
"""How long a response waits for memory. A source that may not send closes the connection, after a minute (nginx) or
less."""


class Intake:
    """Memory for one body: its transfer waits until there is some, for PATIENCE_SECONDS at most; then it is cancelled,
    but keeps its place in the queue. `waited`: whether it had to. See `transfer.source.Intake`."""

    def __init__(self, memory: MemoryBudget, runs: Runs, reservation: Reservation | None = None) -> None:
        """`reservation`: for a body of this size; one of another waits all the same."""
        self.waited = False
        self._late = False
        self._memory = memory
        self._runs = runs
        self._asked: Asked | None = None
        self._reservation = reservation
        self._coming: Reservation | None = None  # granted, which the engine's thread has not heard of
        self._transfer: Transfer | None = None  # that the memory is for
        self._crc: Crc32c | None = None  # of what was written there
        self._timer: Timer | None = None
        self._answered = Gate()  # opened when what was asked for is granted
        self._given_up = False

    def admit(self, transfer: Transfer, size_bytes: int) -> None:
        if self._given_up:
            raise HttpError("it was cancelled")
        reserved = self.take()
        if reserved is not None and reserved.size_bytes != size_bytes:
            reserved.release()
            reserved = None
        if not size_bytes:
            return
        reservation = reserved or self._memory.try_reserve(size_bytes)
        if reservation is not None:
            self._begin(transfer, reservation)
        else:
            transfer.hold()
            self.waited = True

            def granted(reservation: Reservation) -> None:
                self._coming = reservation
                if self._given_up:
                    reservation.release()
                else:
                    self._runs.call_soon(lambda: self._granted(transfer, reservation))

            self._asked = self._memory.ask(size_bytes, granted)
            self._timer = self._runs.call_later(PATIENCE_SECONDS, lambda: self._too_late(transfer))

    def _granted(self, transfer: Transfer, reservation: Reservation) -> None:
        self._asked = self._coming = None
        if self._given_up:
            return
        self._no_timer()
        self._begin(transfer, reservation)
        self._answered.open()
        if not self._late:
            transfer.release()

    def _too_late(self, transfer: Transfer) -> None:
        self._late = True
        transfer.cancel()

    def _begin(self, transfer: Transfer, reservation: Reservation) -> None:
        self._reservation = reservation
        self._transfer = transfer
        transfer.into(reservation.file, self._write)

    def _write(self, write: Write) -> Write:
        self._crc = Crc32c()
        return self._crc.along(write)

    def _no_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    async def reserved(self) -> Reservation | None:
        """`take`, once it is granted."""
        if self._asked is not None:
            await self._answered
        return self.take()

    def take(self) -> Reservation | None:
        """Return what is reserved, for whoever has the body now."""
        reservation, self._reservation = self._reservation, None
        return reservation

    def filled(self, body: bytes, crc: int | None = None) -> Filled:
        """The body that came whole, in its memory. `crc`: its CRC32C, where it was computed."""
        reservation = self.take()
        if reservation is not None and self._transfer is not None:
            reservation.reuse(self._transfer.written)
        if self._crc is not None:
            crc = self._crc.value
        return Filled(body, reservation, crc32c=crc)

    def keep_what_is_used(self) -> None:
        """What was reserved beforehand, for a body that is read in another way after all, is not wanted."""
        if self._transfer is None and (reservation := self.take()) is not None:
            reservation.release()

    def give_up(self) -> None:
        """What is reserved and was not taken is not wanted. Idempotent."""
        self._given_up = True
        self._no_timer()
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.leave()
        if self._coming is not None:
            self._coming.release()
        if (reservation := self.take()) is not None:
            reservation.release()
