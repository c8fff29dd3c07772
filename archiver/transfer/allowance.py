"""How much of a memory budget a process may use, so that all of the process stays within its limit.

What else a process takes is not known beforehand: a cloud's library, the trusted authorities, connections with their
buffers, a line for each of 80,000 segments. So the process is measured while its buffers fill.
"""

from __future__ import annotations

from collections.abc import Callable

# shares of the process's limit; in brackets, of 256 MiB
_LOOK_SHARE = 16  # reserved between two measurements (16 MiB)
_MARGIN_SHARE = 25  # kept free for what comes between two measurements (10 MiB)
_SOON_SHARE = 9  # kept for connections and their buffers until they show (28 MiB)
_STEP_SHARE = 128  # allowed more by one measurement: what was reserved just now does not show yet (2 MiB)


class Allowance:
    """Of one process. Not thread-safe: its `MemoryBudget` calls it under a lock.

    `process_bytes`: what the process is to stay within. `most_bytes`, `least_bytes`: of its buffers, whatever is
    measured. `resident_bytes` measures the process; None where the system does not tell. `give_back` returns to the
    system what was freed and kept.
    """

    def __init__(
        self,
        process_bytes: int,
        *,
        most_bytes: int,
        least_bytes: int,
        resident_bytes: Callable[[], int | None],
        give_back: Callable[[], None],
    ) -> None:
        self.most_bytes = most_bytes
        self.allowed_bytes = most_bytes
        self._least_bytes = min(least_bytes, most_bytes)
        self._target_bytes = process_bytes - process_bytes // _MARGIN_SHARE
        self._soon_bytes = process_bytes // _SOON_SHARE
        self._look_bytes = process_bytes // _LOOK_SHARE
        self._step_bytes = process_bytes // _STEP_SHARE
        self._resident_bytes = resident_bytes
        self._give_back = give_back
        self._reserved_bytes = 0  # since the buffers were empty
        self._unseen_bytes = 0  # of them, since the last measurement

    def reserved(self, size_bytes: int, in_use_bytes: int, kept_bytes: int) -> None:
        """So much was reserved just now, `in_use_bytes` with what was before; `kept_bytes` are to be used again."""
        if in_use_bytes == size_bytes:  # the first
            self._reserved_bytes = self._unseen_bytes = 0
            self._begin(kept_bytes)
        self._reserved_bytes += size_bytes
        self._unseen_bytes += size_bytes
        if self._unseen_bytes >= self._look_bytes:
            self._unseen_bytes = 0
            self._look(in_use_bytes + kept_bytes)

    def _begin(self, kept_bytes: int) -> None:
        resident = self._resident_bytes()
        if resident is not None:
            self._allow(self._target_bytes - (resident - kept_bytes) - self._soon_bytes)

    def _look(self, held_bytes: int) -> None:
        resident, step = self._resident_bytes(), self._step_bytes
        too_much = resident is not None and resident > self._target_bytes
        if too_much:  # only now: to give back costs page faults
            self._give_back()
            resident = self._resident_bytes()
        if resident is None:
            return
        # once all that is allowed is in use
        left = self._target_bytes - resident - max(0, self.allowed_bytes - held_bytes)
        all_written_to = self._reserved_bytes > 1.5 * self.allowed_bytes
        if too_much or left < -step:
            self._allow(self.allowed_bytes + min(left, -step))
        elif left > step and all_written_to:
            self._allow(self.allowed_bytes + step)

    def _allow(self, size_bytes: int) -> None:
        self.allowed_bytes = max(self._least_bytes, min(size_bytes, self.most_bytes))
