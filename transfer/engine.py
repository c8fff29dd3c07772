"""The engine: copies of one asset's objects, several at once, in bounded memory.

Getters, each with one connection to a source, fill a bounded pool of reused buffers; putters send them to the
stores. They are apart so that a source never waits for a store's answer (performance.md, "The shape that won").
What happens to one object: `transfer.object_copy`; to one object at one store: `transfer.lane`,
and `transfer.one_request` for those of a single part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import monotonic
from types import TracebackType
from typing import Self

from storage_backends.base import ObjectKey, StorageBackend
from transfer import stopping
from transfer.base import Chunks, CopyRequest, CopyResult, Source, UploadJournal
from transfer.crew import Crew
from transfer.errors import Stopped
from transfer.memory import MemoryBudget
from transfer.object_copy import ObjectCopy, Tools
from transfer.pace import Pace
from transfer.placement import Placement
from transfer.retrying import Patience
from transfer.sending import Dispatch

_GRACE_SECONDS = 2.0  # for threads to notice that they are told to stop, four times what a wait needs


def _untold(_key: ObjectKey, _count: int) -> None:
    return


def _go_on() -> None:
    return


class TransferEngine:
    """`transfer.base.Engine`. `connections` to sources at most, as many as pay (`transfer.pace`); `uploads` calls
    to stores at once.

    `on_bytes(key, n)` is told of n more bytes read, or found stored by an earlier attempt; `should_stop` raises
    when it is time to end, and is asked about twice a second by every thread: both are called from any thread and
    must be quick. What `should_stop` raises is in the futures of what was not finished. Engines of one process share
    `memory` and `placement`.
    """

    def __init__(
        self,
        memory: MemoryBudget,
        *,
        part_bytes: int = 16 * 1024 * 1024,
        connections: int = 16,
        uploads: int = 12,
        journal: UploadJournal | None = None,
        on_bytes: Callable[[ObjectKey, int], None] = _untold,
        should_stop: Callable[[], None] = _go_on,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        placement: Placement | None = None,
    ) -> None:
        self._memory = memory
        self._should_stop = should_stop
        self._stopping = threading.Event()
        self._placement = placement or Placement()
        # twice what can be worked on: enough that nobody idles, few enough for 86,400 segments to pass in little memory
        self._room = _Room(2 * (connections + uploads))
        self._getters = Crew("getter", connections, memory, self._check)
        self._putters = Crew("putter", uploads, memory, self._check)
        self._tools = Tools(
            getters=self._getters,
            dispatch=Dispatch(self._putters, patience, journal),
            memory=memory,
            part_bytes=part_bytes,
            patience=patience,
            pace=Pace(connections, self._set_connections),
            placement=self._placement,
            on_bytes=on_bytes,
            stopping=self._stopping.is_set,
        )

    def submit(
        self, source: Source, request: CopyRequest, stores: Sequence[StorageBackend]
    ) -> Future[CopyResult]:
        copy = self._admit(request, stores)
        copy.from_source(source)
        return copy.future

    def submit_chunks(
        self, chunks: Chunks, request: CopyRequest, stores: Sequence[StorageBackend]
    ) -> Future[CopyResult]:
        copy = self._admit(request, stores)
        with stopping.watched(self._check):
            copy.from_chunks(chunks)
        return copy.future

    def __enter__(self) -> Self:
        self._placement.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._stopping.set()
        for crew in (self._getters, self._putters):
            crew.stop()
        for copy in self._room.inside():
            copy.fail(Stopped("the engine was left before this copy had ended"))
        deadline = monotonic() + _GRACE_SECONDS
        for crew in (self._getters, self._putters):
            crew.join(deadline)
        self._memory.trim()
        self._placement.leave()

    # -- inside --------------------------------------------------------------------------------------------
    def _admit(self, request: CopyRequest, stores: Sequence[StorageBackend]) -> ObjectCopy:
        names = [store.name for store in stores]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a copy needs stores with distinct names, not {names}")
        self._check()
        copy = ObjectCopy(request, stores, self._tools, self._room.leave)
        self._room.enter(copy, self._check)
        return copy

    def _check(self) -> None:
        """What each thread does between two pieces of work, and while it waits."""
        self._placement.follow()
        if self._stopping.is_set():
            raise Stopped("the engine was told to stop")
        try:
            self._should_stop()
        except BaseException:
            self._stopping.set()
            raise

    def _set_connections(self, connections: int) -> None:
        self._getters.limit = connections


class _Room:
    """The copies under way, at most `capacity`. Who waits to enter is woken when an eighth of it is free: to be woken
    for each would cost as much as all else about a small object."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._inviting = capacity - max(1, capacity // 8)
        self._inside: set[ObjectCopy] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def enter(self, copy: ObjectCopy, check: Callable[[], None]) -> None:
        """Blocks while it is full; raises what `check` raises."""
        with self._lock:
            while len(self._inside) >= self._capacity:
                self._changed.wait(stopping.POLL_SECONDS)
                check()
            self._inside.add(copy)

    def leave(self, copy: ObjectCopy) -> None:
        """Repeatable."""
        with self._lock:
            self._inside.discard(copy)
            if len(self._inside) <= self._inviting:
                self._changed.notify()

    def inside(self) -> list[ObjectCopy]:
        with self._lock:
            return list(self._inside)
