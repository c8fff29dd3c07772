"""The engine: copies of one asset's objects, several at once, in bounded memory.

Each copy is a coroutine (`transfer.object_copy`) in the thread that drives the requests to sources; requests to stores
are driven by another, and what blocks runs in threads of its own (`archiver.http.runtime`). The copy of a small file
that is here already runs in the thread that submits it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from archiver.http import cancellation
from archiver.http.loop import Timer
from archiver.http.runtime import Caller, Runtime, process_runtime
from archiver.http.session import Session
from archiver.http.waiting import Blocking, Ended, Wait, blocking, complete
from archiver.retry_policy import REQUEST, RetryPolicy
from archiver.transfer.bandwidth import UNLIMITED, Bandwidth
from archiver.transfer.base import Chunks, CopyRequest, CopyResult, Source, UploadJournal
from archiver.transfer.bodies import Body, ChunkReader, ChunksFailed, Filled, fill
from archiver.transfer.confirmations import Confirmations
from archiver.transfer.errors import SourceMismatch, Stopped, TransferError
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.object_copy import ObjectCopy
from archiver.transfer.part_sizes import PART_BYTES, part_size
from archiver.transfer.reading import BlockingReading, HttpReading, Reading
from archiver.transfer.room import Room
from archiver.transfer.source import HttpSource
from archiver.transfer.storing import StoreTools
from archiver.transfer.tasks import Slots, Task
from archiver.transfer.tools import Cancelled, Tools
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError

_GRACE_SECONDS = 2.0  # for calls under way to notice that they are cancelled, four times what a wait needs


class TransferEngine:
    """`transfer.base.Engine`. At most `connections` requests to sources at once, and `uploads` to each store.

    `on_bytes(key, n)` is told of n more bytes read, or found stored by an earlier attempt; `should_stop` raises when it
    is time to end, and is asked about twice a second: both are called from any thread and must be quick. What
    `should_stop` raises is in the futures of what was not finished. Once `should_yield()` is true no part is begun any
    more: what lacks parts ends with Preempted when those under way are stored, and so does what is being read back, if
    it can be resumed. Engines of one process share `memory`. `bandwidth`: of sources.
    """

    def __init__(
        self,
        memory: MemoryBudget,
        *,
        part_bytes: int = PART_BYTES,
        connections: int = 16,
        uploads: int = 12,
        journal: UploadJournal | None = None,
        on_bytes: Callable[[ObjectKey, int], None] = lambda _key, _count: None,
        should_stop: Callable[[], None] = lambda: None,
        should_yield: Callable[[], bool] = lambda: False,
        bandwidth: Bandwidth = UNLIMITED,
        policy: RetryPolicy = REQUEST,
        runtime: Runtime | None = None,
    ) -> None:
        self._memory = memory
        self._should_stop = should_stop
        self._runtime = runtime or process_runtime()
        self.call_soon = self._runtime.call_soon
        self.call_later = self._runtime.call_later
        self._stopped: BaseException | None = None
        self._begun = False  # whether its thread knows of it
        self._tasks: dict[Task, _Running] = {}
        self._sessions: dict[HttpClient, Session] = {}
        self._confirmations = Confirmations(policy)
        self._timer: Timer | None = None
        # twice what can be worked on: enough that nobody idles, few enough for 86,400 segments to pass in little memory
        self._room = Room(self._runtime, 2 * (connections + uploads))
        self._part_bytes = part_bytes
        self._tools = Tools(
            runs=self,
            stores=StoreTools(self, uploads, policy, journal, should_yield),
            memory=memory,
            connections=Slots(connections),
            policy=policy,
            part_bytes=part_bytes,
            on_bytes=on_bytes,
            should_yield=should_yield,
            bandwidth=bandwidth,
        )

    def submit(
        self, source: Source, request: CopyRequest, stores: Sequence[StorageBackend]
    ) -> Future[CopyResult]:
        copy = self._admit(request, stores)
        if self._needs_no_thread(source, request, stores):
            return self._run_here(lambda: copy.from_source(self._reading(source, request, certain=True)))
        return self._run(
            lambda: copy.from_source(self._reading(source, request, certain=request.fresh)), self._room.leave
        )

    def submit_chunks(
        self, chunks: Chunks, request: CopyRequest, stores: Sequence[StorageBackend]
    ) -> Future[CopyResult]:
        copy = self._admit(request, stores)
        size_bytes = request.size_bytes
        if size_bytes is None and isinstance(chunks, Sequence):  # a playlist made by us: known, and small
            size_bytes = sum(len(chunk) for chunk in chunks)
        body = Body(ChunkReader(chunks), size_bytes, copy, SourceMismatch)
        try:
            with cancellation.watched(self._check):
                return self._run_chunks(copy, body, part_size(size_bytes, self._part_bytes, stores))
        except ChunksFailed as failed:
            raise failed.error from None

    def confirm_soon(self) -> Future[Mapping[ObjectKey, str]]:
        if self._confirmations.any_waiting:
            return self._run(lambda: self._confirmations.confirm(self), lambda: None)
        self._check()
        nothing: Future[Mapping[ObjectKey, str]] = self._runtime.future()
        nothing.set_result({})
        return nothing

    def confirm(self) -> Mapping[ObjectKey, str]:
        future = self.confirm_soon()
        while True:
            with suppress(TimeoutError):
                condemned: Mapping[ObjectKey, str] = future.result(timeout=cancellation.POLL_SECONDS)
                return condemned
            self._check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._stopped = self._stopped or Stopped("the engine was left before this copy had ended")
        if not self._begun:
            return
        over: Future[None] = self._runtime.future()
        try:
            self._runtime.call_soon(partial(self._close, over))
        except (RuntimeError, MemoryError):  # it never had a thread
            return
        with suppress(TimeoutError):
            over.result(timeout=_GRACE_SECONDS)

    # -- what coroutines run on (`http.runtime.Runs`) -------------------------------------------------------
    def block(self, wait: Blocking[Any], ended: Ended) -> None:
        call = wait.call

        def watched() -> Any:
            with cancellation.watched(self._check):
                return call()

        self._runtime.block(Blocking(watched, wait.pool), ended)

    # -- in the caller's thread ----------------------------------------------------------------------------
    def _admit(self, request: CopyRequest, stores: Sequence[StorageBackend]) -> ObjectCopy:
        names = [store.name for store in stores]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a copy needs stores with distinct names, not {names}")
        self._check()
        self._room.enter(self._check)
        return ObjectCopy(request, stores, self._tools)

    def _run_chunks(self, copy: ObjectCopy, body: Body, part_bytes: int) -> Future[CopyResult]:
        """The first part is read here, before the engine's thread hears of the copy: most objects have no more."""
        future: Future[CopyResult] | None = None
        try:
            size_bytes = part_bytes if body.expected_bytes is None else min(part_bytes, body.expected_bytes)
            filled = complete(self._first_part(body, size_bytes))
            caller = self._runtime.caller()
            future = self._run(
                lambda: copy.from_body(body, filled, partial(_InCaller, caller)),
                self._room.leave,
                filled.release,
            )
            if filled.more:
                caller.serve(future)
        except (TransferError, StorageError) as error:
            if future is None:
                self._room.leave()
                future = self._runtime.future()
                future.set_exception(error)
            if self._stopped is not None:
                raise
        except BaseException:
            if future is None:
                self._room.leave()
            raise
        if future.done() and isinstance(failed := future.exception(), ChunksFailed):
            raise failed
        body.drain()
        return future

    async def _first_part(self, body: Body, size_bytes: int) -> Filled:
        await self._tools.bandwidth.take(size_bytes)
        return await fill(body, size_bytes, self._memory, blocking)

    def _needs_no_thread(
        self, source: Source, request: CopyRequest, stores: Sequence[StorageBackend]
    ) -> bool:
        """Return whether a copy waits for one thing at a time: its body is here, it has one store, and nothing else is
        under way. To wake the engine's thread would cost a small object more than all else."""
        if self._begun or request.fresh or request.known is not None or len(stores) > 1:
            return False
        first_bytes = part_size(request.size_bytes, self._part_bytes, stores)
        return isinstance(source, HttpSource) and source.holds(first_bytes)

    def _run_here(self, coroutine: Callable[[], Coroutine[Wait[Any], Any, Any]]) -> Future[Any]:
        """Run it in this thread, to its end."""
        running = _Running(self._runtime.future(), coroutine, self._room.leave, lambda: None)
        try:
            with cancellation.watched(self._check):
                value = complete(coroutine())
        except BaseException as error:  # noqa: BLE001 - it is in the future, as of every copy
            running.end(None, error)
        else:
            running.end(value, None)
        return running.future

    def _run(
        self,
        coroutine: Callable[[], Coroutine[Wait[Any], Any, Any]],
        ended: Callable[[], None],
        never_began: Callable[[], None] = lambda: None,
    ) -> Future[Any]:
        """Run it in the engine's thread. `never_began` is called where the engine was stopped before."""
        future: Future[Any] = self._runtime.future()
        future.set_running_or_notify_cancel()
        running = _Running(future, coroutine, ended, never_began)
        self._begun = True
        try:
            self._runtime.call_soon(partial(self._begin, running))
        except BaseException as error:  # noqa: BLE001 - no thread: it is this copy's error, as later ones are
            running.refuse(error)
        return future

    def _check(self) -> None:
        """Raise when the engine was stopped, or should stop. In any thread."""
        if self._stopped is not None:
            raise Stopped("the engine was told to stop")
        try:
            self._should_stop()
        except BaseException as error:
            self._stopped = error
            if self._begun:
                with suppress(RuntimeError, MemoryError):
                    self._runtime.call_soon(partial(self._stop, error))
            raise

    # -- in the engine's thread ----------------------------------------------------------------------------
    def _begin(self, running: _Running) -> None:
        if self._stopped is not None:
            running.refuse(self._stopped)
            return
        try:
            task = Task(self, running.coroutine())
        except BaseException as error:  # noqa: BLE001 - no memory, no file handle: it is this copy's error
            running.refuse(error)
            return
        self._tasks[task] = running
        task.start(partial(self._finished, task))
        if self._timer is None:
            self._timer = self.call_later(cancellation.POLL_SECONDS, self._tick)
        task.begin()

    def _finished(self, task: Task, value: Any, error: BaseException | None) -> None:
        if (running := self._tasks.pop(task, None)) is not None:
            running.end(value, error)

    def _tick(self) -> None:
        self._timer = None
        with suppress(BaseException):  # it is in the futures
            self._check()
        if self._tasks and self._stopped is None:
            self._timer = self.call_later(cancellation.POLL_SECONDS, self._tick)

    def _stop(self, error: BaseException) -> None:
        for task, running in list(self._tasks.items()):
            task.throw(Cancelled(error))
            running.end(None, error)

    def _close(self, over: Future[None]) -> None:
        assert self._stopped is not None
        self._stop(self._stopped)
        if self._timer is not None:
            self._timer.cancel()
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        over.set_result(None)

    def _reading(self, source: Source, request: CopyRequest, *, certain: bool) -> Reading:
        if not isinstance(source, HttpSource):
            return BlockingReading(source, self._memory)
        session = None if certain else self._session(source.client)
        return HttpReading(source, request.key, session, self._memory, self._confirmations, self)

    def _session(self, client: HttpClient) -> Session:
        session = self._sessions.get(client)
        if session is None:
            session = self._sessions[client] = client.session()
        return session


class _Running:
    """A coroutine that was submitted, and its future. `ended` is called before the future is done."""

    __slots__ = ("_ended", "_never_began", "_over", "coroutine", "future")

    def __init__(
        self,
        future: Future[Any],
        coroutine: Callable[[], Coroutine[Wait[Any], Any, Any]],
        ended: Callable[[], None],
        never_began: Callable[[], None],
    ) -> None:
        self.future = future
        self.coroutine = coroutine
        self._ended = ended
        self._never_began = never_began
        self._over = False

    def end(self, value: Any, error: BaseException | None) -> None:
        """Idempotent: the first end counts."""
        if self._over:
            return
        self._over = True
        self._ended()
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error.cause if isinstance(error, Cancelled) else error)

    def refuse(self, error: BaseException) -> None:
        """End it without having begun."""
        self._never_began()
        self.end(None, error)


class _InCaller(Wait[Any]):
    """A call that only the thread which gave the chunks may make."""

    def __init__(self, caller: Caller, call: Callable[[], Any]) -> None:
        self._caller = caller
        self._call = call

    def start(self, ended: Ended) -> None:
        self._caller.run(Blocking(self._call), ended)
