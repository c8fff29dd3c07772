"""One bound on the memory that bodies take, for all engines of a process.

What makes it safe to wait here: reservations are granted first come, first served, a copy takes a connection before it
asks for memory, and nobody who has memory waits for one who waits for it. A store that takes parts in order would make
the later wait for the earlier: those are reserved in their order, before they are requested (`transfer.parts_copy`).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from io import BytesIO

from archiver.http.waiting import Ended, Wait
from archiver.transfer.allowance import Allowance
from archiver.transfer.errors import BudgetTooSmall

AHEAD_SHARE = 4
REUSED_BYTES = 1024 * 1024
"""From this size on, memory is used again as it is: fresh pages cost as much as moving bytes into them does."""


class Reservation:
    """Bytes that may be used until `release`, which may be repeated."""

    __slots__ = ("_ahead", "_budget", "_file", "size_bytes")

    def __init__(
        self, budget: MemoryBudget, size_bytes: int, spare: BytesIO | None = None, *, ahead: bool = False
    ) -> None:
        self._budget = budget
        self._file = spare
        self._ahead = ahead
        self.size_bytes = size_bytes

    def file(self) -> BytesIO | None:
        """`size_bytes` of any content, to be written from the first to the last. None: too few to be used again."""
        file, self._file = self._file, None
        if file is None and self.size_bytes >= self._budget.reused_bytes:
            file = BytesIO(bytes(self.size_bytes))
        return file

    def reuse(self, file: BytesIO | None) -> None:
        """Others may get `file` from `file()` once this is released. Say it when nobody writes there any more. Whoever
        reads what was in it may go on: BytesIO copies what others hold before it writes."""
        self._file = file

    def release(self) -> None:
        size_bytes, self.size_bytes = self.size_bytes, 0
        file, self._file = self._file, None
        if size_bytes:
            self._budget.release(size_bytes, file, ahead=self._ahead)


class MemoryBudget:
    """At most `limit_bytes` at once, and what `allowance` allows, if one is given. Safe from several threads. Of
    `reused_bytes` and more, memory that was released is kept for the next of the same size, within the limit, and as
    long as anything is reserved."""

    def __init__(
        self, limit_bytes: int, reused_bytes: int = REUSED_BYTES, allowance: Allowance | None = None
    ) -> None:
        self.limit_bytes = limit_bytes
        self._allowance = allowance
        self.reused_bytes = reused_bytes
        self._lock = threading.Lock()
        self._queue: deque[Asked] = deque()
        self._spare: list[tuple[int, BytesIO]] = []  # to be used again, while the budget has room for them
        self._spare_bytes = 0
        self._in_use_bytes = 0
        self._peak_bytes = 0
        self._ahead_bytes = 0  # of those in use, what is read ahead

    @property
    def in_use_bytes(self) -> int:
        return self._in_use_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that was ever in use at once."""
        return self._peak_bytes

    @property
    def spare_bytes(self) -> int:
        """Kept to be used again."""
        return self._spare_bytes

    @property
    def waiting(self) -> int:
        """Return how many reservations are waited for."""
        return len(self._queue)

    def try_reserve(self, size_bytes: int) -> Reservation | None:
        """A reservation, or None when it would have to be waited for. Raises BudgetTooSmall when it could never be
        granted."""
        if size_bytes > self.limit_bytes:
            raise BudgetTooSmall(
                f"a buffer of {size_bytes} bytes does not fit into the {self.limit_bytes} bytes of memory that "
                "transfers may take (ARCHIVER_TRANSFER_MEMORY)"
            )
        with self._lock:
            if self._queue or not self._fits(size_bytes):
                return None
            spare = self._take(size_bytes)
        return Reservation(self, size_bytes, spare)

    def try_ahead(self, size_bytes: int) -> Reservation | None:
        """For what is read ahead of its use: at most a quarter of the limit in all, so that the parts made of it always
        find room; None when there is none just now."""
        with self._lock:
            allowed_bytes = self._allowed_bytes()
            over = self._ahead_bytes + size_bytes > allowed_bytes // AHEAD_SHARE
            if over or self._queue or self._in_use_bytes + size_bytes > allowed_bytes:
                return None
            self._ahead_bytes += size_bytes
            self._reserved(size_bytes)
            self._drop_spares(self._allowed_bytes() - self._in_use_bytes)
        return Reservation(self, size_bytes, ahead=True)

    def ask(self, size_bytes: int, granted: Callable[[Reservation], None]) -> Asked:
        """Have `granted` called once it is reserved, perhaps before this returns, from any thread."""
        asked = Asked(self, size_bytes, granted)
        with self._lock:
            self._queue.append(asked)
        self._grant()
        return asked

    async def reserve(self, size_bytes: int) -> Reservation:
        """Waits in the order of asking. Raises BudgetTooSmall."""
        return self.try_reserve(size_bytes) or await _Reserved(self, size_bytes)

    def release(self, size_bytes: int, file: BytesIO | None, *, ahead: bool) -> None:
        """Only for `Reservation.release`."""
        with self._lock:
            self._in_use_bytes -= size_bytes
            if ahead:
                self._ahead_bytes -= size_bytes
            if file is not None and file.seek(0, os.SEEK_END) == size_bytes:
                file.seek(0)
                self._spare.append((size_bytes, file))
                self._spare_bytes += size_bytes
            if not self._in_use_bytes and not self._queue:
                self._drop_spares(0)  # an idle process keeps none
        self._grant()

    def leave(self, asked: Asked) -> None:
        """Only for `Asked.leave`."""
        with self._lock:
            if asked in self._queue:
                self._queue.remove(asked)
        self._grant()

    def _grant(self) -> None:
        while True:
            with self._lock:
                if not self._queue or not self._fits(self._queue[0].size_bytes):
                    return
                asked = self._queue.popleft()
                spare = self._take(asked.size_bytes)
            asked.granted(Reservation(self, asked.size_bytes, spare))

    def _allowed_bytes(self) -> int:
        return self.limit_bytes if self._allowance is None else self._allowance.allowed_bytes

    def _fits(self, size_bytes: int) -> bool:
        """Return whether it may be reserved. What is allowed may become less; what fits into the limit is granted all
        the same once nothing but what is read ahead of it is in use, or the two would wait for each other."""
        in_use_bytes = self._in_use_bytes + size_bytes
        alone = self._in_use_bytes == self._ahead_bytes and in_use_bytes <= self.limit_bytes
        return alone or in_use_bytes <= self._allowed_bytes()

    def _reserved(self, size_bytes: int) -> None:
        self._in_use_bytes += size_bytes
        self._peak_bytes = max(self._peak_bytes, self._in_use_bytes)
        if self._allowance is not None:
            self._allowance.reserved(size_bytes, self._in_use_bytes, self._spare_bytes)

    def _take(self, size_bytes: int) -> BytesIO | None:
        """A spare of this size, if there is one."""
        if not self._spare:
            self._reserved(size_bytes)
            return None
        found = next((index for index, spare in enumerate(self._spare) if spare[0] == size_bytes), None)
        file = None
        if found is not None:
            file = self._spare.pop(found)[1]
            self._spare_bytes -= size_bytes
        self._reserved(size_bytes)
        self._drop_spares(self._allowed_bytes() - self._in_use_bytes)
        return file

    def _drop_spares(self, most_bytes: int) -> None:
        while self._spare and self._spare_bytes > most_bytes:
            self._spare_bytes -= self._spare.pop(0)[0]


class Asked:
    """A place in the queue. `leave` it when nobody waits any more; what is granted already is given to `granted`."""

    __slots__ = ("_budget", "granted", "size_bytes")

    def __init__(self, budget: MemoryBudget, size_bytes: int, granted: Callable[[Reservation], None]) -> None:
        self._budget = budget
        self.size_bytes = size_bytes
        self.granted = granted

    def leave(self) -> None:
        self._budget.leave(self)


class _Reserved(Wait[Reservation]):
    __slots__ = ("_asked", "_budget", "_cancelled", "_reservation", "_size_bytes")

    def __init__(self, budget: MemoryBudget, size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes
        self._asked: Asked | None = None
        self._reservation: Reservation | None = None
        self._cancelled = False

    def start(self, ended: Ended) -> None:
        def granted(reservation: Reservation) -> None:
            self._reservation = reservation
            if self._cancelled:
                reservation.release()
            else:
                ended(reservation, None)

        self._asked = self._budget.ask(self._size_bytes, granted)

    def cancel(self) -> None:
        self._cancelled = True
        if self._reservation is not None:
            self._reservation.release()
        elif self._asked is not None:
            self._asked.leave()
