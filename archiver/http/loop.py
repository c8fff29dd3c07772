"""One thread that drives libcurl's multi handles, timers, and whatever is posted to it.

Everything that a `Loop` calls runs in its thread, one thing at a time; `call_soon` is how other threads enter it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import heapq
import itertools
import os
import select
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Protocol
from weakref import WeakSet

_ACTIONS_A_TURN = 1000
LONGEST_SLEEP_SECONDS = 60.0
_STOP_SECONDS = 1.0


class Driven(Protocol):
    """What a loop drives: a multi handle with its sockets. Called in the loop's thread."""

    due: float | None

    def ready(self, fd: int, events: int) -> None: ...

    def timeout(self) -> None: ...

    def collect(self) -> None: ...


class Timer:
    """A call to come. `cancel` it in the loop's thread."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Loop:
    """A daemon thread, started at the first use; it ends with the process. Of one process: see `orphaned`."""

    def __init__(self, name: str) -> None:
        self.orphaned = False  # by a fork: its thread runs in the parent alone
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._posted: deque[Callable[[], None]] = deque()
        self._asleep = False
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._driven: set[Driven] = set()
        self._owners: dict[int, Driven] = {}
        self._watched: dict[int, int] = {}  # for what, of those that are owned or parked
        self._parked: set[int] = set()  # watched by the system, though nobody is to be told
        self._reused: set[int] = set()  # of those parked: open still, until libcurl returns
        self._kept: WeakSet[object] = WeakSet()
        self._poller: _Poller  # these three are there while the thread is: see `_open`
        self._wake_reader: int
        self._wake_writer: int
        _loops.add(self)

    # -- from any thread -----------------------------------------------------------------------------------
    def call_soon(self, action: Callable[[], None]) -> None:
        """Have `action` called in the loop's thread, in order. It must not block, nor raise. Raises RuntimeError,
        OSError or MemoryError when the machine gives no thread or no file handle, with nothing left behind;
        RuntimeError after a fork."""
        if self._thread is None or self.orphaned:
            self._start()
        self._posted.append(action)
        if self._asleep:
            self._wake()

    def stop(self) -> None:
        """End the thread; what is under way stays as it is."""
        thread, self._stopped = self._thread, True
        if thread is not None and not self.orphaned and thread is not threading.current_thread():
            self._wake()
            thread.join(_STOP_SECONDS)

    def keep_after_fork(self, thing: object) -> None:
        """Let no fork free `thing`: libcurl would end TLS connections that the parent still uses."""
        self._kept.add(thing)

    def condition(self) -> threading.Condition:
        """One that another thread waits for, and this loop's notifies."""
        return threading.Condition()

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    # -- in the loop's thread ------------------------------------------------------------------------------
    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        timer = Timer(action)
        heapq.heappush(self._timers, (monotonic() + seconds, next(self._order), timer))
        return timer

    def call(self, action: Callable[[], None]) -> None:
        """Call `action` now; what it raises ends nothing else."""
        try:
            action()
        except BaseException:  # noqa: BLE001 - the thread serves every asset of the process: it goes on
            traceback.print_exc(file=sys.stderr)

    def drive(self, driven: Driven) -> None:
        self._driven.add(driven)

    def watch(self, driven: Driven, fd: int, events: int) -> None:
        """Tell `driven` when `fd` is ready for `events` (READ, WRITE)."""
        if fd not in self._reused or self._watched[fd] != events:
            self._poller.watch(fd, events, known=fd in self._parked or fd in self._owners)
            self._watched[fd] = events
        self._reused.discard(fd)
        self._parked.discard(fd)
        self._owners[fd] = driven

    def unwatch(self, fd: int) -> None:
        if self._owners.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def park(self, fd: int) -> None:
        """As `unwatch`, of a connection that is kept and will probably be watched again: it is left to the system until
        something happens to it. When it is closed, the system forgets it by itself."""
        if self._owners.pop(fd, None) is not None:
            self._parked.add(fd)

    def reuse(self, fd: int) -> None:
        """The parked connection `fd` is open still, and is to be watched again before libcurl returns: the system does
        so already, unless for other events."""
        if fd in self._parked:
            self._reused.add(fd)

    # -- inside --------------------------------------------------------------------------------------------
    def _start(self) -> None:
        with self._lock:
            if self.orphaned:
                raise RuntimeError(
                    f"the loop {self._name} belongs to the process that this one was forked from"
                )
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._open()
                self._thread = thread  # before it runs: its first action may ask `is_current`
                try:
                    thread.start()
                except BaseException:
                    self._thread = None
                    self._close()
                    raise

    def _open(self) -> None:
        poller = _Poller()
        self._wake_reader, self._wake_writer = os.pipe()
        self._poller = poller
        try:
            os.set_blocking(self._wake_reader, False)
            os.set_blocking(self._wake_writer, False)
            self._poller.register(self._wake_reader, READ)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        os.close(self._wake_reader)
        os.close(self._wake_writer)
        del self._poller, self._wake_reader, self._wake_writer

    def _wake(self) -> None:
        self._asleep = False
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self._wake_writer, b"\0")

    def _run(self) -> None:
        while not self._stopped:
            self.call(self._turn)

    def _call_posted(self) -> None:
        """What they post as well: a connection that is free waits for its next request."""
        posted, left = self._posted, _ACTIONS_A_TURN
        while posted and left:
            left -= 1
            try:  # as `call`, without one more for each
                posted.popleft()()
            except BaseException:  # noqa: BLE001
                traceback.print_exc(file=sys.stderr)

    def _turn(self) -> None:
        self._call_posted()
        self._run_due()  # requests begin before others end: each finds its connection as it was when it was polled
        self._asleep = True
        events = self._poller.poll(0.0 if self._posted or self._stopped else self._seconds_to_sleep())
        self._asleep = False
        touched: set[Driven] = set()
        for fd, what in events:
            owner = self._owners.get(fd)
            if owner is not None:
                self.call(partial(owner.ready, fd, what))
                self._reused.clear()
                touched.add(owner)
            elif fd == self._wake_reader:
                os.read(fd, 4096)
            else:  # parked: it ended, or something came that nobody asked for
                self._parked.discard(fd)
                self._poller.unregister(fd)
        for driven in touched:
            self.call(driven.collect)
        self._run_due()
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.action is not None:
                self.call(timer.action)

    def _run_due(self) -> None:
        now = monotonic()
        for driven in list(self._driven):
            if driven.due is not None and driven.due <= now:
                self.call(driven.timeout)
                self._reused.clear()
                self.call(driven.collect)

    def _seconds_to_sleep(self) -> float:
        now = monotonic()
        dues = [driven.due for driven in self._driven if driven.due is not None]
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if self._timers:
            dues.append(self._timers[0][0])
        return max(0.0, min(min(dues, default=now + LONGEST_SLEEP_SECONDS) - now, LONGEST_SLEEP_SECONDS))


_loops: WeakSet[Loop] = WeakSet()
_immortal: list[object] = []


def _forked() -> None:
    """In the child. Even the end of its interpreter must not free what the parent uses: hence the uncounted
    reference."""
    for loop in list(_loops):
        loop.orphaned = True
    _keep_for_ever()


def _stop_all() -> None:
    """Before the interpreter takes its objects apart: libcurl must not be in the middle of one. Nor may they be freed:
    libcurl would wait for its threads, which may be in a lookup that nobody answers for minutes."""
    for loop in list(_loops):
        loop.stop()
    _keep_for_ever()


def _keep_for_ever() -> None:
    for loop in list(_loops):
        _immortal.extend([loop, *loop._kept])  # noqa: SLF001
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_immortal))
    for thing in _immortal:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


os.register_at_fork(after_in_child=_forked)
atexit.register(_stop_all)


READ, WRITE = 1, 2


if sys.platform == "linux":

    class _Poller:
        """epoll, with READ and WRITE."""

        def __init__(self) -> None:
            self._epoll = select.epoll()

        def register(self, fd: int, events: int) -> None:
            self._epoll.register(fd, _MASK[events])

        def watch(self, fd: int, events: int, *, known: bool) -> None:
            if known:
                try:
                    self._epoll.modify(fd, _MASK[events])
                except FileNotFoundError:  # it was closed, and another one got its number
                    pass
                else:
                    return
            self.register(fd, events)

        def unregister(self, fd: int) -> None:
            with contextlib.suppress(OSError):  # closed already
                self._epoll.unregister(fd)

        def poll(self, seconds: float) -> list[tuple[int, int]]:
            return self._epoll.poll(seconds)

    _MASK = {READ: select.EPOLLIN, WRITE: select.EPOLLOUT, READ | WRITE: select.EPOLLIN | select.EPOLLOUT}
else:

    class _Poller:
        """poll(2), with READ and WRITE."""

        def __init__(self) -> None:
            self._poll = select.poll()

        def register(self, fd: int, events: int) -> None:
            self._poll.register(fd, _MASK[events])

        def watch(self, fd: int, events: int, *, known: bool) -> None:  # noqa: ARG002
            self.register(fd, events)

        def unregister(self, fd: int) -> None:
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)

        def poll(self, seconds: float) -> list[tuple[int, int]]:
            return self._poll.poll(int(seconds * 1000) + 1)

    _MASK = {READ: select.POLLIN, WRITE: select.POLLOUT, READ | WRITE: select.POLLIN | select.POLLOUT}
