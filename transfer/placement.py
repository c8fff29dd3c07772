"""On which processors the threads of engines run.

Python runs one thread at a time. Spread over several processors, threads that do little at a time outside of it wake
each other across them for every turn: of the processor time of a small object that was a third, of a GiB over TLS a
quarter, and of their wall time as much (docs/decisions/0004-data-path.md). So while bytes come in small pieces, all
threads stay on one processor, the least busy; large pieces, which are moved outside of Python, are left to the system.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, process_time

_SMALL_BYTES = 1024 * 1024  # a piece of more costs more outside of Python than in it
_ANSWERS = 8  # before it is judged what they are like
_LOOK_SECONDS = 2.0  # between two looks at what comes now, and what else runs there
_CROWDED = 0.25  # of a processor, by which others take more of ours than of the freest: reason to move

_SUPPORTED = hasattr(os, "sched_setaffinity")  # Linux

Cores = frozenset[int]
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def allowed_cores() -> Cores:
    """Where this thread may run; empty where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if _SUPPORTED else frozenset()


def stay_on(cores: Cores) -> None:
    """From now on this thread, and those that it starts, run there alone. Raises OSError."""
    os.sched_setaffinity(0, cores)


def busy_seconds() -> Mapping[int, float]:
    """By processor of this machine: how long it was busy since it started. Raises OSError."""
    busy: dict[int, float] = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, _, numbers = line.partition(" ")
        if name.startswith("cpu") and name[3:].isdigit():
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, numbers.split())
            busy[int(name[3:])] = (user + nice + system + irq + softirq + steal) / _TICKS_A_SECOND
    return busy


class Placement:
    """For all engines of a process: they share the one interpreter. An engine calls `enter` and `leave` in the thread
    that owns it, and `follow` in each of its threads between two pieces of work. Safe from several threads."""

    def __init__(
        self,
        allowed: Callable[[], Cores] = allowed_cores,
        move: Callable[[Cores], None] = stay_on,
        busy: Callable[[], Mapping[int, float]] = busy_seconds,
        own: Callable[[], float] = process_time,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._allowed = allowed()
        self._move = move
        self._busy = busy
        self._own = own
        self._clock = clock
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._wanted = self._allowed
        self._engines = 0
        self._answers = self._bytes = 0
        self._looked_at = clock()
        self._seen: Mapping[int, float] = {}
        self._own_seen = 0.0
        self._enabled = len(self._allowed) > 1
        if self._enabled:
            self._look()

    def enter(self) -> None:
        """One more engine is at work."""
        with self._lock:
            self._engines += 1

    def moved(self, piece_bytes: int) -> None:
        """One answer was read to its end, in pieces of about so many bytes."""
        if not self._enabled:
            return
        with self._lock:
            self._answers += 1
            self._bytes += piece_bytes
            if self._answers < _ANSWERS:
                return
            gathered = len(self._wanted) == 1
            if gathered and self._clock() - self._looked_at < _LOOK_SECONDS:
                return  # or threads would go to and fro while one engine copies a tree and one a large file
            small = self._bytes < _SMALL_BYTES * self._answers
            self._answers = self._bytes = 0
            self._wanted = self._best_core(gathered) if small else self._allowed

    def follow(self) -> None:
        """This thread goes where it is wanted."""
        wanted = self._wanted
        # a new thread runs where the one that started it did, which it cannot know
        if not self._enabled or getattr(self._mine, "cores", None) == wanted:
            return
        self._mine.cores = wanted
        try:
            self._move(wanted)
        except OSError:  # what is allowed has changed: no more of this
            self._enabled = False

    def leave(self) -> None:
        """One less; this thread may run wherever it might before."""
        with self._lock:
            self._engines -= 1
            if not self._engines:
                self._wanted = self._allowed
                self._answers = self._bytes = 0
        if getattr(self._mine, "cores", self._allowed) != self._allowed:
            self._mine.cores = self._allowed
            with suppress(OSError):
                self._move(self._allowed)

    def _best_core(self, gathered: bool) -> Cores:
        seconds, taken = self._look()
        others = {core: taken.get(core, 0.0) for core in self._allowed}
        if seconds <= 0:
            return self._wanted if gathered else frozenset({random.choice(sorted(others))})  # noqa: S311
        least = min(others.values())
        if gathered:
            (here,) = self._wanted
            if others[here] < least + _CROWDED * seconds:
                return self._wanted
        # one of the freest: engines of several processes should not all choose the same
        return frozenset({random.choice([c for c in sorted(others) if others[c] <= least + 0.1 * seconds])})  # noqa: S311

    def _look(self) -> tuple[float, dict[int, float]]:
        """Seconds since the last look, and how many of them each processor was busy with others than us."""
        now, own = self._clock(), self._own()
        try:
            seen = dict(self._busy())
        except (OSError, ValueError):
            seen = {}
        seconds, since_own = now - self._looked_at, own - self._own_seen
        taken = {core: value - self._seen[core] for core, value in seen.items() if core in self._seen}
        if len(self._wanted) == 1:
            (here,) = self._wanted
            taken[here] = max(0.0, taken.get(here, 0.0) - since_own)
        self._looked_at, self._seen, self._own_seen = now, seen, own
        return seconds, taken
