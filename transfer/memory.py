"""One bound on the memory that bodies take, for all engines of a process.

What makes it safe to wait here: reservations are granted first come, first served, and a copy takes a connection before
it asks for memory, so that the earliest unfinished part of an object always has both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from archiver.http.waiting import Ended, Wait, complete
from transfer.errors import BudgetTooSmall


class Reservation:
    """Bytes that may be used until `release`, which may be repeated."""

    __slots__ = ("_budget", "size_bytes")

    def __init__(self, budget: MemoryBudget, size_bytes: int) -> None:
        self._budget = budget
        self.size_bytes = size_bytes

    def release(self) -> None:
        size_bytes, self.size_bytes = self.size_bytes, 0
        if size_bytes:
            self._budget.give_back(size_bytes)


class MemoryBudget:
    """At most `limit_bytes` at once. Safe from several threads."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._queue: deque[Asked] = deque()
        self._in_use_bytes = 0
        self._peak_bytes = 0

    @property
    def in_use_bytes(self) -> int:
        return self._in_use_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that was ever in use at once."""
        return self._peak_bytes

    @property
    def waiting(self) -> int:
        """How many reservations are waited for."""
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
            if self._queue or self._in_use_bytes + size_bytes > self.limit_bytes:
                return None
            self._take(size_bytes)
        return Reservation(self, size_bytes)

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

    def reserve_blocking(self, size_bytes: int) -> Reservation:
        """As `reserve`, in a thread that may block; ends early with its cancellation signal."""
        return self.try_reserve(size_bytes) or complete(self.reserve(size_bytes))

    def give_back(self, size_bytes: int) -> None:
        """Only for `Reservation.release`."""
        with self._lock:
            self._in_use_bytes -= size_bytes
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
                if not self._queue or self._in_use_bytes + self._queue[0].size_bytes > self.limit_bytes:
                    return
                asked = self._queue.popleft()
                self._take(asked.size_bytes)
            asked.granted(Reservation(self, asked.size_bytes))

    def _take(self, size_bytes: int) -> None:
        self._in_use_bytes += size_bytes
        self._peak_bytes = max(self._peak_bytes, self._in_use_bytes)


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
