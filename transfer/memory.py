"""A bound on the memory that moving bytes may take, whatever the number of copies, and buffers that are reused.

What makes it safe to wait here: reservations are granted first come, first served, and nobody waits while
holding a block that others wait for (`transfer.crew` reserves for an object's parts in their order).
"""

from __future__ import annotations

import threading
from collections import deque

from transfer import stopping
from transfer.errors import BudgetTooSmall

_SMALLEST_BYTES = 64 * 1024
_STEPS_PER_DOUBLING = (
    8  # sizes are rounded up to one of these, so that buffers fit again; at most 12.5 % is lost
)


class MemoryBudget:
    """At most `limit_bytes` of buffers, those in use and those kept for reuse together. Shared by threads and by
    all engines of a process."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._queue: deque[Place] = deque()
        self._in_use_bytes = 0
        self._peak_bytes = 0
        self._spare: dict[int, list[bytearray]] = {}
        self._spare_bytes = 0

    @property
    def in_use_bytes(self) -> int:
        with self._lock:
            return self._in_use_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that was ever in use at once."""
        with self._lock:
            return self._peak_bytes

    @property
    def spare_bytes(self) -> int:
        """Kept for reuse; in use and spare together are never more than the limit."""
        with self._lock:
            return self._spare_bytes

    @property
    def waiting(self) -> int:
        """How many wait in `reserve`."""
        with self._lock:
            return len(self._queue)

    def reserve(self, size_bytes: int) -> Block:
        """A block of at least `size_bytes`. Blocks until others release theirs, in order of asking; ends early
        with the stop signal's exception. Raises BudgetTooSmall when it could never be granted."""
        rounded = _rounded(size_bytes)
        with self._lock:
            at_once = not self._queue and self._in_use_bytes + rounded <= self.limit_bytes
            buffer = self._take(rounded) if at_once else None
        if not at_once:
            return self.line_up(size_bytes).wait()
        return Block(self, rounded, self.new_buffer(rounded) if buffer is None else buffer)

    def new_buffer(self, rounded: int) -> bytearray:
        """For what is counted as used already; no longer when the machine has less memory than the setting says.
        Raises MemoryError."""
        try:
            return bytearray(rounded)
        except MemoryError:
            self.trim()
            with self._lock:
                self._in_use_bytes -= rounded
                self._grant()
            raise

    def line_up(self, size_bytes: int) -> Place:
        """A place in the order of asking, at once. Raises nothing: what could never be granted, `wait` refuses."""
        place = Place(self, size_bytes, min(_rounded(size_bytes), self.limit_bytes))
        if size_bytes <= self.limit_bytes:
            with self._lock:
                self._queue.append(place)
                self._grant()
        return place

    def leave(self, place: Place) -> None:
        """Only for `Place.leave`."""
        with self._lock:
            if place.granted:
                place.granted = False
                self._in_use_bytes -= place.rounded
            elif place in self._queue:
                self._queue.remove(place)
            self._grant()

    def _grant(self) -> None:
        """Give the first in the queue what they wait for, as many as can have it."""
        while self._queue and self._in_use_bytes + self._queue[0].rounded <= self.limit_bytes:
            place = self._queue.popleft()
            place.grant(self._take(place.rounded))

    def trim(self) -> None:
        """Free the buffers kept for reuse."""
        with self._lock:
            self._spare.clear()
            self._spare_bytes = 0

    def _take(self, rounded: int) -> bytearray | None:
        """Count `rounded` bytes as used; a spare buffer of that size, or None when one is to be made."""
        self._in_use_bytes += rounded
        self._peak_bytes = max(self._peak_bytes, self._in_use_bytes)
        found = self._pop_spare(rounded)
        while (
            found is None and self._spare_bytes and self._spare_bytes + self._in_use_bytes > self.limit_bytes
        ):
            self._pop_spare(next(iter(self._spare)))
        return found

    def _pop_spare(self, rounded: int) -> bytearray | None:
        kept = self._spare.get(rounded)
        if kept is None:
            return None
        buffer = kept.pop()
        if not kept:
            del self._spare[rounded]
        self._spare_bytes -= rounded
        return buffer

    def give_back(self, rounded: int, buffer: bytearray) -> None:
        """Only for `Block.release`."""
        with self._lock:
            self._in_use_bytes -= rounded
            self._spare.setdefault(rounded, []).append(buffer)
            self._spare_bytes += rounded
            self._grant()


class Place:
    """A place in the line for a block: `wait` for it once, or `leave` the line."""

    __slots__ = ("_budget", "_buffer", "_size_bytes", "_wake", "granted", "rounded")

    def __init__(self, budget: MemoryBudget, size_bytes: int, rounded: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes
        self._buffer: bytearray | None = None
        self._wake = threading.Lock()
        self._wake.acquire()
        self.rounded = rounded
        self.granted = False  # and not yet taken

    def grant(self, buffer: bytearray | None) -> None:
        """Only for the budget. `buffer`: one to be used again."""
        self._buffer = buffer
        self.granted = True
        self._wake.release()

    def wait(self) -> Block:
        """As `MemoryBudget.reserve`."""
        if self._size_bytes > self._budget.limit_bytes:
            raise BudgetTooSmall(
                f"a buffer of {self._size_bytes} bytes does not fit into the {self._budget.limit_bytes} bytes of "
                "memory that transfers may take (ARCHIVER_TRANSFER_MEMORY)"
            )
        try:
            while not self._wake.acquire(timeout=stopping.POLL_SECONDS):
                stopping.check()
        except BaseException:
            self.leave()
            raise
        self.granted = False
        buffer, self._buffer = self._buffer, None
        return Block(
            self._budget, self.rounded, self._budget.new_buffer(self.rounded) if buffer is None else buffer
        )

    def leave(self) -> None:
        """Instead of `wait`."""
        self._budget.leave(self)


class Block:
    """A reserved buffer. `release` it; its bytes are someone else's afterwards."""

    __slots__ = ("_budget", "_buffer", "_rounded")

    def __init__(self, budget: MemoryBudget, rounded: int, buffer: bytearray) -> None:
        self._budget = budget
        self._rounded = rounded
        self._buffer: bytearray | None = buffer

    def first(self, size_bytes: int) -> memoryview:
        """The first `size_bytes` of the buffer, writable."""
        assert self._buffer is not None, "a released block is not used"
        return memoryview(self._buffer)[:size_bytes]

    def contents(self, size_bytes: int) -> bytearray | memoryview:
        """The first `size_bytes`, as the buffer itself where that is all of it: some stores' libraries send a
        bytearray as it is and must copy a view."""
        assert self._buffer is not None, "a released block is not used"
        return self._buffer if size_bytes == len(self._buffer) else memoryview(self._buffer)[:size_bytes]

    def release(self) -> None:
        """Repeatable."""
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._budget.give_back(self._rounded, buffer)


def _rounded(size_bytes: int) -> int:
    if size_bytes <= _SMALLEST_BYTES:
        return _SMALLEST_BYTES
    step = (1 << ((size_bytes - 1).bit_length() - 1)) // _STEPS_PER_DOUBLING
    return -(-size_bytes // step) * step
