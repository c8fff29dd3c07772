"""Everything in one command: `archiver up` and `archiver demo` on a machine that has nothing but Python.

The supervisor starts an embedded Valkey (unless there is a Redis already), the archive worker, the control worker, beat
and Flower, each as a process of its own in a session of its own; starts again what falls over; and stops them in the
order in which nothing is lost: beat, workers, Flower, companions, Valkey. On Linux none of them outlives the
supervisor, however it ends; what they leave half-way the next start takes up from the ledger.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import redis
from celery import Celery
from celery.app.control import Inspect
from celery.utils.nodenames import gethostname

from archiver.ledger.redis.tls import tls_options
from worker.celery_setup import processes
from worker.celery_setup.config import celery_settings
from worker.embedded.child import Child, ProcessStatus
from worker.embedded.valkey import LOOPBACK, EmbeddedValkey, write_private
from worker.errors import SupervisorError

READY_LIMIT = timedelta(minutes=2)
"""A worker is up in about 2 s on a quiet machine; a laptop that just woke may take a minute."""
BROKER_LIMIT = timedelta(seconds=15)
"""For a Redis of one's own that starts at the same time as we do."""
LOADING_LIMIT = timedelta(minutes=10)
"""Valkey reads its whole append-only file before it answers; with a million assets that is no longer instant."""
SOFT_SHUTDOWN = timedelta(seconds=2)
"""How long running tasks may go on after Ctrl-C. A busy worker always waits all of it (celery.md), a short task needs
less, and a long one is taken up again where it was."""
STOP_GRACE = timedelta(seconds=15)
"""For each stage of the ordered stop, on top of the soft shutdown; then it is killed."""
TICK = timedelta(milliseconds=200)
DEFAULT_FLOWER_PORT = 5555


class AlreadyRunning(SupervisorError):
    """Another supervisor has this state directory."""


class StartFailed(SupervisorError):
    """A process did not come up. The message ends with what it said last."""


@dataclass(frozen=True, slots=True)
class FlowerOptions:
    """Where Flower listens: at `port`, or at any free one when that is taken or 0. Outside loopback it always has a
    password: `basic_auth` (user:password), else one is made and kept in the state directory."""

    address: str = LOOPBACK
    port: int = DEFAULT_FLOWER_PORT
    basic_auth: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Companion:
    """Another process to run beside, such as the simulator; it is up when `ready_url` answers below 500."""

    name: str
    command: Sequence[str]
    ready_url: str


class Supervisor:
    """Runs the whole archiver on this machine, from `start` to `stop`.

    Use it as a context manager in the main thread: inside, the first SIGINT (Ctrl-C), SIGTERM or SIGHUP begins the stop
    and is a KeyboardInterrupt, any further one makes the stop wait for nobody. Leaving it stops everything, in seconds.

    `environment` is what the processes get (settings and cloud credentials); the broker's URL is added here.
    `redis_url` None brings the embedded Valkey along. Without workers it is that alone, for one command's time.
    `on_fall` is called, in another thread, when a process has ended that should not have; it is started again.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        environment: Mapping[str, str],
        redis_url: str | None = None,
        flower: FlowerOptions | None = None,
        companions: Sequence[Companion] = (),
        with_beat: bool = True,
        with_workers: bool = True,
        app: str = processes.APP,
        on_fall: Callable[[ProcessStatus], None] = lambda _: None,
    ) -> None:
        self._state_dir = state_dir
        self._logs = state_dir / "logs"
        self._valkey = EmbeddedValkey(state_dir) if redis_url is None else None
        self._redis_url = redis_url
        self._environment = {
            **environment,
            "ARCHIVER_STATE_DIR": str(state_dir),
            "REMAP_SIGTERM": "SIGQUIT",  # SIGTERM gives running tasks back instead of waiting hours for their end
            "PYTHONUNBUFFERED": "1",
        }
        self._flower = flower
        self._flower_port: int | None = None
        self._flower_password_file: Path | None = None
        self._companions = companions
        self._with_beat = with_beat and with_workers
        self._with_workers = with_workers
        self._app = app
        self._on_fall = on_fall
        self._children: dict[str, Child] = {}
        self._lock_file: int | None = None
        self._thread: threading.Thread | None = None
        self._up = threading.Event()  # or failed
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._finished = threading.Event()
        self._failure: BaseException | None = None
        self._old_handlers: dict[signal.Signals, Any] = {}

    # ------------------------------------------------------------------ for the caller

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._old_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler)

    def start(self) -> None:
        """Returns when every process is up. Raises AlreadyRunning, or StartFailed with all stopped again."""
        self._take_lock()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._thread.start()
        self._up.wait()
        if self._failure is not None:
            self._finished.wait()
            raise self._failure

    def wait(self) -> None:
        """Until a signal ends it, or until the supervision itself fails, which it raises."""
        try:
            self._finished.wait()
        except KeyboardInterrupt:
            return
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stops all in order and returns when all are gone. May be repeated."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._drop_lock()

    def status(self) -> list[ProcessStatus]:
        """One line a process, in the order of their start."""
        return [child.status() for child in list(self._children.values())]

    @property
    def redis_url(self) -> str:
        """Of the broker and ledger, password included. Once started."""
        url = self._redis_url or (self._valkey.url() if self._valkey is not None else None)
        if url is None:
            raise SupervisorError("The embedded Valkey has no address before it was started.")
        return url

    @property
    def broker_address(self) -> str:
        """Host and port of the broker and ledger, for people: without the password. Once started."""
        url = urlsplit(self.redis_url)
        where = f"{url.hostname}:{url.port or 6379}"
        return f"{where} (embedded Valkey)" if self._valkey is not None else where

    @property
    def companions(self) -> Sequence[Companion]:
        return self._companions

    @property
    def flower_url(self) -> str | None:
        """None without Flower, and before the start."""
        if self._flower is None or self._flower_port is None:
            return None
        address = self._flower.address
        shown = LOOPBACK if address in ("", "0.0.0.0", "::") else address  # noqa: S104 (shown, not bound)
        return (
            f"http://[{shown}]:{self._flower_port}" if ":" in shown else f"http://{shown}:{self._flower_port}"
        )

    @property
    def flower_password_file(self) -> Path | None:
        """Where the password that was made for Flower is, as user:password; None when none was needed or made."""
        return self._flower_password_file

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set():
            # Raising again could break into the stop itself.
            self._hurry.set()
            return
        self._stop.set()
        raise KeyboardInterrupt

    # ------------------------------------------------------------------ the supervising thread

    def _run(self) -> None:
        try:
            self._start_all()
            self._up.set()
            while not self._stop.wait(TICK.total_seconds()):
                for child in self._children.values():
                    if child.tend():
                        self._on_fall(child.status())
                    child.trim_log()
        except BaseException as error:  # noqa: BLE001 (handed to the thread that waits)
            self._failure = error
        finally:
            try:
                self._stop_all()
            finally:
                self._finished.set()
                self._up.set()

    def _start_all(self) -> None:
        if self._valkey is not None:
            self._start_valkey(self._valkey)
        else:
            self._wait_for_broker()
        self._environment["ARCHIVER_REDIS_URL"] = self.redis_url

        for companion in self._companions:
            self._start_child(companion.name, companion.command)
        for companion in self._companions:
            self._wait_for_page(companion.name, companion.ready_url)

        if not self._with_workers:
            return
        nodes = (processes.ARCHIVE_NODE, processes.CONTROL_NODE)
        for node, command in zip(nodes, (processes.archive_worker, processes.control_worker), strict=True):
            self._start_child(f"{node}-worker", command(app=self._app, soft_shutdown=SOFT_SHUTDOWN))
        if self._flower is not None:
            self._start_flower(self._flower)
        self._wait_for_workers(nodes)
        if self._with_beat:
            self._start_child("beat", processes.beat(app=self._app))
            self._children["beat"].mark_ready()
        if self._flower is not None:
            self._wait_for_page("flower", f"{self.flower_url}/healthcheck")

    def _start_valkey(self, valkey: EmbeddedValkey) -> None:
        self._end_orphaned_valkey(valkey)
        for last in (False, False, False, False, True):
            child = self._start_child("valkey", valkey.prepare(keep_port="valkey" not in self._children))
            try:
                self._wait_until("valkey", valkey.answers, LOADING_LIMIT)
            except (StartFailed, redis.AuthenticationError):
                # Most likely somebody took the port after we looked. A broken file fails again, and then says so.
                child.kill()
                if last or "Address already in use" not in child.last_lines():
                    raise
            else:
                return

    def _wait_for_broker(self) -> None:
        """Raises StartFailed when the configured broker does not answer; workers would wait for it in silence."""
        said = ""

        def answers() -> bool:
            nonlocal said
            with redis.Redis.from_url(
                self.redis_url, socket_timeout=2, socket_connect_timeout=2, **tls_options(self.redis_url)
            ) as client:
                try:
                    return bool(client.ping())
                except redis.RedisError as error:
                    said = str(error)
                    return False

        if not self._poll(answers, BROKER_LIMIT):
            raise StartFailed(
                f"The broker of ARCHIVER_REDIS_URL does not answer: {said or 'the stop was asked for'}\n"
                "Start it, or mend the URL; unset, an embedded Valkey is used."
            )

    def _end_orphaned_valkey(self, valkey: EmbeddedValkey) -> None:
        """We have the lock, so a server that answers under our password is one whose supervisor was killed where
        there is no leash. Two servers on one append-only file would ruin it."""
        try:
            orphaned = valkey.answers()
        except redis.AuthenticationError:
            return  # somebody else's, on the port that we had
        if not orphaned:
            return
        with redis.Redis.from_url(self.redis_url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.shutdown()
        self._poll(lambda: not valkey.answers(), STOP_GRACE)

    def _start_flower(self, flower: FlowerOptions) -> None:
        self._flower_port = _free_port(flower.address, flower.port)
        secret = {} if (auth := self._flower_auth(flower)) is None else {"FLOWER_BASIC_AUTH": auth}
        if not secret:
            # Without it the API answers 401 although the pages show the same; nobody but this machine can ask,
            # and Flower is read-only.
            secret = {"FLOWER_UNAUTHENTICATED_API": "true"}
        self._start_child(
            "flower",
            processes.flower(address=flower.address, port=self._flower_port, app=self._app),
            extra=secret,
        )

    def _flower_auth(self, flower: FlowerOptions) -> str | None:
        if flower.basic_auth is not None:
            return flower.basic_auth
        if _is_loopback(flower.address):
            return None
        self._flower_password_file = self._state_dir / "flower.password"
        try:
            return self._flower_password_file.read_text().strip()
        except FileNotFoundError:
            auth = f"archiver:{secrets.token_urlsafe(16)}"
            write_private(self._flower_password_file, f"{auth}\n")
            return auth

    def _start_child(
        self, name: str, command: Sequence[str], *, extra: Mapping[str, str] | None = None
    ) -> Child:
        environment = self._environment | dict(extra or {})
        child = Child(name, processes.runnable(command), environment, self._logs / f"{name}.log")
        self._children[name] = child
        child.start()
        return child

    def _wait_for_workers(self, nodes: Sequence[str]) -> None:
        # The same settings as the workers': the key prefix decides where they listen.
        with Celery(set_as_current=False) as client:
            client.conf.update(celery_settings(broker_url=self.redis_url, concurrency=1))
            for node in nodes:
                inspect = client.control.inspect(destination=[f"{node}@{gethostname()}"], timeout=0.5)
                self._wait_until(f"{node}-worker", partial(_answers_ping, inspect), READY_LIMIT)

    def _wait_for_page(self, name: str, url: str) -> None:
        with httpx.Client(timeout=2, trust_env=False) as client:  # no proxy stands between us and ourselves

            def answers() -> bool:
                try:
                    return client.get(url).status_code < 500
                except httpx.HTTPError:
                    return False

            self._wait_until(name, answers, READY_LIMIT)

    def _wait_until(self, name: str, ready: Callable[[], bool], limit: timedelta) -> None:
        child = self._children[name]

        def ready_or_dead() -> bool:
            if not child.is_alive():
                raise StartFailed(
                    f"{name} ended while it started ({child.exit_in_words()}). "
                    f"Its log, {child.status().log}, ends:\n{child.last_lines()}"
                )
            return ready()

        if self._poll(ready_or_dead, limit):
            child.mark_ready()
            return
        reason = "the stop was asked for" if self._stop.is_set() else f"it had {limit.total_seconds():.0f} s"
        raise StartFailed(
            f"{name} was not ready ({reason}). Its log, {child.status().log}, ends:\n{child.last_lines()}"
        )

    def _poll(self, condition: Callable[[], bool], limit: timedelta) -> bool:
        """False when the limit is over, or the stop was asked for, before the condition holds."""
        until = time.monotonic() + limit.total_seconds()
        while not condition():
            if time.monotonic() > until or self._stop.wait(0.05):
                return False
        return True

    def _stop_all(self) -> None:
        workers = (f"{processes.ARCHIVE_NODE}-worker", f"{processes.CONTROL_NODE}-worker")
        # Beat first: nothing new. Workers while Valkey lives: they give their messages back. Valkey last.
        self._stop_stage(["beat"])
        self._stop_stage([*workers, "flower"], extra_grace=SOFT_SHUTDOWN)
        self._stop_stage([companion.name for companion in self._companions])
        self._stop_stage(["valkey"])

    def _stop_stage(self, names: Sequence[str], *, extra_grace: timedelta = timedelta()) -> None:
        children = [self._children[name] for name in names if name in self._children]
        for child in children:
            child.ask_to_stop()
        until = time.monotonic() + (STOP_GRACE + extra_grace).total_seconds()
        while any(child.is_alive() for child in children) and time.monotonic() < until:
            if self._hurry.wait(0.05):
                break
        for child in children:
            child.kill()

    # ------------------------------------------------------------------ the lock on the state directory

    def _take_lock(self) -> None:
        self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._state_dir / "supervisor.lock"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The kernel drops it when we die, so that a stale one cannot be.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 32).decode().strip() or "unknown"
            os.close(file)
            raise AlreadyRunning(
                f"An archiver (process {holder}) already runs on the state directory {self._state_dir}. "
                "Stop it first, or give this one another ARCHIVER_STATE_DIR."
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._lock_file = file

    def _drop_lock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def _answers_ping(inspect: Inspect) -> bool:
    return bool(inspect.ping())


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _free_port(address: str, wanted: int) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in (wanted, 0):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise StartFailed(
        f"Flower cannot listen on {address!r}: it is not an address of this machine (FLOWER_ADDRESS)."
    )
