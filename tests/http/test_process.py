"""The loop's thread, the pool's, and what becomes of them in forks and at the end of a process."""

from __future__ import annotations

import errno
import gc
import os
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from archiver.http import cancellation, runtime
from archiver.http import loop as loop_module
from archiver.http.loop import Loop
from archiver.http.multi import Multi
from archiver.http.options import Options
from archiver.http.pool import Pool
from archiver.http.runtime import process_runtime
from archiver.http.session import Session
from archiver.http.waiting import Blocking
from tests.http.serving import WAIT_SECONDS, Client, Exchange, Transport, answer

ROOT = Path(__file__).parents[2]


def in_child(work: Callable[[], None]) -> int:
    """The exit status of a fork that does `work`."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# -- forks ---------------------------------------------------------------------------------------------------
def test_a_child_has_a_runtime_of_its_own_and_leaves_the_parents_connections_alone(over: Transport) -> None:
    options = Options(ca_file=over.ca_file)
    session = Session(process_runtime().sources, options)
    with over.server() as server:
        assert Client(session).get(server).ordinal == 1
        parents = process_runtime()

        def work() -> None:
            assert process_runtime() is not parents
            own = Session(process_runtime().sources, options)
            for number in (1, 2):
                assert Client(own).get(server).ordinal == number
            session.close()  # what a store does that is closed in a child

        assert in_child(work) == 0

        again = Client(session).get(server)
        assert again.ordinal == 2
        assert again.connection is not None
        assert not again.connection.tainted
        assert server.connections == 2
    session.close()


def test_in_a_child_the_parents_session_says_that_it_is_the_parents(over: Transport) -> None:
    session = Session(process_runtime().sources, Options(ca_file=over.ca_file))
    with over.server() as server:
        Client(session).get(server)

        def work() -> None:
            with pytest.raises(RuntimeError, match="forked"):
                Client(session).get(server)

        assert in_child(work) == 0
    session.close()


SCRIPT = """
import os, sys, gc
from pathlib import Path
from archiver.http.runtime import process_runtime
from archiver.http.options import Options
from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import complete
session = Session(process_runtime().sources, Options(ca_file=Path(sys.argv[2])))
def get():
    async def wait():
        return await Transfer(session, Request(sys.argv[1]))
    return complete(wait())
get()
child = os.fork()
if child == 0:
    if sys.argv[3] == "drops":
        del session
        gc.collect()
    sys.exit(0)  # the interpreter takes everything apart
os.waitpid(child, 0)
transfer = get()
print(transfer.ordinal, transfer.connection.tainted)
"""


@pytest.mark.parametrize("child", ["drops", "keeps"])
def test_the_end_of_a_child_is_not_the_end_of_the_parents_connections(child: str, over: Transport) -> None:
    with over.server() as server:
        done = python(SCRIPT, server.url, str(over.ca_file), child)

        assert done.stdout == "2 False\n", done.stderr
        assert server.connections == 1


def python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


ENDING = """
import sys, threading
from pathlib import Path
from archiver.http.runtime import process_runtime
from archiver.http.options import Options
from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer
session = Session(process_runtime().sources, Options(ca_file=Path(sys.argv[2])))
under_way = threading.Semaphore(0)
def again(*_):
    under_way.release()
    Transfer(session, Request(sys.argv[1])).start(again)
for _ in range(8):
    again()
for _ in range(100):
    under_way.acquire()
print("ended")
"""


def test_a_process_ends_well_with_transfers_under_way(over: Transport) -> None:
    body = answer(b"x" * 200_000)
    with over.server(otherwise=lambda exchange: exchange.send(body)) as server:
        for _ in range(3):
            done = python(ENDING, server.url, str(over.ca_file))

            assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_a_process_ends_although_a_server_is_silent(over: Transport) -> None:
    script = ENDING.replace("range(100)", "range(8)")
    with over.server(otherwise=Exchange.stall) as server:
        done = python(script, server.url, str(over.ca_file))

        assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


# -- the loop ------------------------------------------------------------------------------------------------
def test_actions_run_in_order_in_one_thread(loop: Loop) -> None:
    seen: list[tuple[int, bool]] = []
    done = threading.Event()
    for number in range(1000):
        loop.call_soon(lambda number=number: seen.append((number, loop.is_current)))  # type: ignore[misc]
    loop.call_soon(done.set)
    assert done.wait(WAIT_SECONDS)

    assert seen == [(number, True) for number in range(1000)]
    assert not loop.is_current


def test_an_action_that_raises_disturbs_nobody(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    done = threading.Event()
    for error in (KeyError, SystemExit):
        loop.call_soon(lambda error=error: (_ for _ in ()).throw(error("told")))  # type: ignore[misc]
    loop.call_soon(done.set)

    assert done.wait(WAIT_SECONDS)
    assert "told" in capsys.readouterr().err


def test_timers_come_in_time_and_not_when_they_were_cancelled(loop: Loop) -> None:
    seen: list[str] = []
    done = threading.Event()

    def arrange() -> None:
        loop.call_later(0.03, lambda: seen.append("second"))
        loop.call_later(0.01, lambda: seen.append("first"))
        loop.call_later(0.02, lambda: seen.append("cancelled")).cancel()
        loop.call_later(0.05, done.set)

    loop.call_soon(arrange)
    assert done.wait(WAIT_SECONDS)

    assert seen == ["first", "second"]


def test_many_threads_wake_the_loop(loop: Loop) -> None:
    counted = threading.Semaphore(0)

    def post() -> None:
        for _ in range(200):
            loop.call_soon(counted.release)

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(8 * 200):
        assert counted.acquire(timeout=WAIT_SECONDS)
    for thread in threads:
        thread.join()


def test_a_loop_stops() -> None:
    loop = Loop("short")
    loop.call_soon(lambda: None)
    loop.stop()

    assert not any(thread.name == "short" for thread in threading.enumerate())
    loop.stop()


def test_no_thread_is_told_and_the_next_time_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loop, done = Loop("starved"), threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            loop.call_soon(done.set)
    loop.call_soon(done.set)

    assert done.wait(WAIT_SECONDS)
    loop.stop()


def open_handles() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="counts handles in /proc")
@pytest.mark.parametrize("lacking", ["a thread", "an epoll handle", "a pipe", "a place in it"])
def test_a_loop_that_cannot_start_leaves_no_file_handle_behind(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread") if lacking == "a thread" else OSError(errno.EMFILE, "no")

    where, name = {
        "a thread": (threading.Thread, "start"),
        "an epoll handle": (select, "epoll"),
        "a pipe": (os, "pipe"),
        "a place in it": (loop_module._Poller, "register"),
    }[lacking]
    loop, done = Loop("starved"), threading.Event()
    before = open_handles()
    with monkeypatch.context() as starved:
        starved.setattr(where, name, refuse)
        for _ in range(5):
            with pytest.raises((RuntimeError, OSError)):
                loop.call_soon(done.set)
    assert open_handles() == before

    loop.call_soon(done.set)
    assert done.wait(WAIT_SECONDS)
    loop.stop()


def test_two_sessions_of_two_loops_work_side_by_side(over: Transport) -> None:
    loops = [Loop("one"), Loop("two")]
    sessions = [Session(Multi(loop), Options(ca_file=over.ca_file)) for loop in loops]
    with over.server() as server:
        for session in sessions * 3:
            assert Client(session).body(server) == b"hello"
    for session, loop in zip(sessions, loops, strict=True):
        session.close()
        done = threading.Event()
        loop.call_soon(done.set)
        assert done.wait(WAIT_SECONDS)
        loop.stop()


# -- the pool ------------------------------------------------------------------------------------------------
class Ended:
    def __init__(self) -> None:
        self._done = threading.Event()
        self.value: object = None
        self.error: BaseException | None = None

    def __call__(self, value: object, error: BaseException | None) -> None:
        self.value, self.error = value, error
        self._done.set()

    def wait(self) -> Ended:
        assert self._done.wait(WAIT_SECONDS)
        return self


def called(pool: Pool, call: Callable[[], object]) -> Ended:
    ended = Ended()
    pool.run(Blocking(call), ended)
    return ended


def test_no_call_waits_for_another() -> None:
    """Each of them ends when all of them are there."""
    pool, barrier = Pool("tested"), threading.Barrier(12)
    for _ in range(3):
        for ended in [called(pool, lambda: barrier.wait(WAIT_SECONDS)) for _ in range(12)]:
            assert ended.wait().error is None


def test_errors_are_those_of_the_call() -> None:
    def fail() -> None:
        raise SystemExit("told")

    pool = Pool("tested")

    assert type(called(pool, fail).wait().error) is SystemExit
    assert called(pool, lambda: 7).wait().value == 7


def test_without_more_threads_calls_wait_for_one_and_then_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that had to wait is no reason for the next ones to wait."""
    pool, go_on = Pool("tested"), threading.Event()
    first = called(pool, lambda: go_on.wait(WAIT_SECONDS))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("no thread")))
        waiting = [called(pool, lambda: None) for _ in range(3)]
        assert isinstance(called(Pool("starved"), lambda: None).wait().error, RuntimeError)
    go_on.set()
    for ended in [first, *waiting]:
        assert ended.wait().error is None

    barrier = threading.Barrier(4)
    for ended in [called(pool, lambda: barrier.wait(WAIT_SECONDS)) for _ in range(4)]:
        assert ended.wait().error is None


def test_one_who_waits_and_raises_leaves_the_thread_alive(capsys: pytest.CaptureFixture[str]) -> None:
    pool, raised = Pool("tested"), threading.Event()

    def ended(_: object, __: object) -> None:
        raised.set()
        raise KeyError("told")

    pool.run(Blocking(lambda: None), ended)
    assert raised.wait(WAIT_SECONDS)
    for _ in range(3):
        assert called(pool, lambda: 7).wait().value == 7


# -- the caller's thread --------------------------------------------------------------------------------------
def test_a_caller_runs_calls_in_its_own_thread_until_it_is_done() -> None:
    made = runtime.ProcessRuntime()
    caller, until = made.caller(), made.future()
    seen: list[object] = []

    def fail() -> None:
        raise KeyError

    def work() -> None:
        caller.run(Blocking(threading.current_thread), lambda value, _: seen.append(value))
        caller.run(Blocking(fail), lambda _, error: seen.append(type(error)))
        until.set_result(None)

    thread = threading.Thread(target=work)
    thread.start()
    caller.serve(until)
    thread.join()

    assert seen == [threading.current_thread(), KeyError]


def test_a_caller_is_cancelled_although_calls_never_end() -> None:
    class Told(Exception):
        pass

    def told() -> None:
        if len(seen) > 10:
            raise Told

    caller, until = runtime.ProcessRuntime().caller(), Future[None]()
    seen: list[float] = []

    def again(*_: object) -> None:
        caller.run(Blocking(lambda: seen.append(time.monotonic())), again)

    again()
    with cancellation.watched(told), pytest.raises(Told):
        caller.serve(until)
    assert len(seen) > 10
