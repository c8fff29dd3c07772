"""The supervisor of `archiver up` and `archiver demo`, for a machine that has nothing but Python.

The supervisor starts an embedded Valkey (unless there is a Redis already), the archive worker, the control worker,
beat, Flower and `archiver serve`, each as a process in its own session; restarts what crashes; and shuts them down in
the order in which nothing is lost: beat, workers, Flower and serve, companions, Valkey. On Linux none of them
outlives the supervisor, however it ends; the next start resumes unfinished work from the ledger.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from worker.embedded.errors import StartFailed
from worker.embedded.flower import Flower, FlowerOptions, forget_flower_url, prepare_flower
from worker.embedded.serve import ServeOptions
from worker.embedded.state_lock import StateLock
from worker.embedded.valkey import EmbeddedValkey
from worker.errors import SupervisorError

READY_LIMIT = timedelta(minutes=2)
"""A worker is up in about 2 s on a quiet machine; a laptop that just woke may take a minute."""
BROKER_LIMIT = timedelta(seconds=15)
"""For a configured Redis that starts at the same time as we do."""
LOADING_LIMIT = timedelta(minutes=10)
"""Valkey reads its whole append-only file before it answers; with a million assets that is no longer instant."""
SOFT_SHUTDOWN = timedelta(seconds=2)
"""How long running tasks may continue after Ctrl-C. A busy worker always waits all of it; a short task needs less, and
a long one is resumed at the next start."""
STOP_GRACE = timedelta(seconds=15)
"""For each stage of the shutdown, on top of the soft shutdown; then its processes are killed."""
TICK = timedelta(milliseconds=200)


@dataclass(frozen=True, slots=True)
class Companion:
    """Another process to run, such as the simulator. It is ready when `ready_url` answers below 500."""

    name: str
    command: Sequence[str]
    ready_url: str


class Supervisor:
    """Runs the whole archiver on this machine, from `start` to `stop`.

    Use it as a context manager in the main thread: inside, the first SIGINT (Ctrl-C), SIGTERM or SIGHUP (unless that
    was ignored before) starts the shutdown and raises KeyboardInterrupt; `ended_by` tells which. Any further one kills
    what still runs. Leaving the block shuts down everything within seconds.

    `environment` is that of the processes (settings and cloud credentials); the broker's URL is added here.
    `redis_url` None starts the embedded Valkey. Without workers only Valkey runs, for the duration of one command.
    `on_crash` is called in another thread after a process exited unexpectedly; it is restarted.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        environment: Mapping[str, str],
        redis_url: str | None = None,
        redis_prefix: str = "archiver",
        flower: FlowerOptions | None = None,
        serve: ServeOptions | None = None,
        companions: Sequence[Companion] = (),
        with_beat: bool = True,
        with_workers: bool = True,
        app: str = processes.APP,
        on_crash: Callable[[ProcessStatus], None] = lambda _: None,
    ) -> None:
        self._state_dir = state_dir
        self._logs = state_dir / "logs"
        self._valkey = EmbeddedValkey(state_dir) if redis_url is None else None
        self._redis_url = redis_url
        self._redis_prefix = redis_prefix
        self._environment = {
            **environment,
            "ARCHIVER_STATE_DIR": str(state_dir),
            "ARCHIVER_REDIS_PREFIX": redis_prefix,
            "REMAP_SIGTERM": "SIGQUIT",  # SIGTERM releases running tasks instead of waiting hours for their end
            "PYTHONUNBUFFERED": "1",
        }
        self._flower_options = flower
        self._flower: Flower | None = None
        self._serve_options = serve
        self._serve: ServeOptions | None = None
        self._companions = companions
        self._with_beat = with_beat and with_workers
        self._with_workers = with_workers
        self._app = app
        self._on_crash = on_crash
        self._children: dict[str, Child] = {}
        self._lock = StateLock(state_dir)
        self._thread: threading.Thread | None = None
        self._up = threading.Event()  # or failed
        self._stop = threading.Event()
        self._kill_now = threading.Event()
        self._finished = threading.Event()
        self._failure: BaseException | None = None
        self.ended_by: signal.Signals | None = None
        self._old_handlers: dict[signal.Signals, Any] = {}

    # ------------------------------------------------------------------ for the caller

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # as nohup asks for
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
        """Return when every process is ready. Raises AlreadyRunning, or StartFailed after everything was shut down."""
        self._lock.acquire()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._thread.start()
        self._up.wait()
        if self._failure is not None:
            self._finished.wait()
            raise self._failure

    def wait(self) -> None:
        """Wait until a signal ends the supervisor, or raise the error that did."""
        try:
            self._finished.wait()
        except KeyboardInterrupt:
            return
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Shut down every process in order, and return when all are gone. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._lock.release()

    def status(self) -> list[ProcessStatus]:
        """One entry per process, in the order of their start."""
        return [child.status() for child in list(self._children.values())]

    @property
    def redis_url(self) -> str:
        """The URL of broker and ledger, with its password. Available after the start."""
        url = self._redis_url or (self._valkey.url() if self._valkey is not None else None)
        if url is None:
            raise SupervisorError("The embedded Valkey has no address before it is started.")
        return url

    @property
    def broker_address(self) -> str:
        """Host and port of broker and ledger, without the password. Available after the start."""
        url = urlsplit(self.redis_url)
        where = f"{url.hostname}:{url.port or 6379}"
        return f"{where} (embedded Valkey)" if self._valkey is not None else where

    @property
    def companions(self) -> Sequence[Companion]:
        return self._companions

    @property
    def flower_url(self) -> str | None:
        """None without Flower, and before the start."""
        return self._flower.url if self._flower is not None else None

    @property
    def serve(self) -> ServeOptions | None:
        """Return where `archiver serve` listens; None without it, and before the start."""
        return self._serve

    @property
    def flower_password_file(self) -> Path | None:
        """The file with the password that was generated for Flower, as user:password; None when there is none."""
        return self._flower.password_file if self._flower is not None else None

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set():
            # Raising again could interrupt the shutdown itself.
            self._kill_now.set()
            return
        self.ended_by = signal.Signals(number)
        self._stop.set()
        raise KeyboardInterrupt

    # ------------------------------------------------------------------ the supervising thread

    def _run(self) -> None:
        try:
            self._start_all()
            self._up.set()
            while not self._stop.wait(TICK.total_seconds()):
                for child in self._children.values():
                    if child.check():
                        self._on_crash(child.status())
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
        if self._flower_options is not None:
            self._start_flower(self._flower_options)
        if self._serve_options is not None:
            self._serve = self._serve_options.resolved()
            self._start_child("serve", processes.serve(), extra=self._serve.environment)
        self._wait_for_workers(nodes)
        if self._with_beat:
            self._start_child("beat", processes.beat(app=self._app))
            self._children["beat"].mark_ready()
        if self._flower is not None:
            self._wait_for_page("flower", f"{self.flower_url}/healthcheck")
        if self._serve is not None:
            self._wait_for_page("serve", f"{self._serve.url}/healthz")

    def _start_valkey(self, valkey: EmbeddedValkey) -> None:
        self._end_orphaned_valkey(valkey)
        for last in (False, False, False, False, True):
            child = self._start_child("valkey", valkey.prepare(keep_port="valkey" not in self._children))
            try:
                self._wait_until("valkey", valkey.answers, LOADING_LIMIT)
            except (StartFailed, redis.AuthenticationError):
                # Probably the port was taken after we checked. A broken file fails again, and is then reported.
                child.kill()
                if last or "Address already in use" not in child.last_lines():
                    raise
            else:
                return

    def _wait_for_broker(self) -> None:
        """Raise StartFailed when the configured broker does not answer; workers would wait for it silently."""
        last_error = ""

        def answers() -> bool:
            nonlocal last_error
            with redis.Redis.from_url(
                self.redis_url, socket_timeout=2, socket_connect_timeout=2, **tls_options(self.redis_url)
            ) as client:
                try:
                    return bool(client.ping())
                except redis.RedisError as error:
                    last_error = str(error)
                    return False

        if not self._poll(answers, BROKER_LIMIT):
            raise StartFailed(
                f"The broker of ARCHIVER_REDIS_URL does not answer: {last_error or 'the start was cancelled'}\n"
                "Start it or fix the URL. If ARCHIVER_REDIS_URL is not set, an embedded Valkey is used."
            )

    def _end_orphaned_valkey(self, valkey: EmbeddedValkey) -> None:
        """Shut down a server that outlived its supervisor, as happens on systems without a parent-death signal: we hold
        the lock, and it answers to our password. Two servers would corrupt the append-only file."""
        try:
            orphaned = valkey.answers()
        except redis.AuthenticationError:
            return  # another program's server, on our former port
        if not orphaned:
            return
        with redis.Redis.from_url(self.redis_url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.shutdown()
        self._poll(lambda: not valkey.answers(), STOP_GRACE)

    def _start_flower(self, options: FlowerOptions) -> None:
        self._flower = prepare_flower(options, self._state_dir)
        self._start_child(
            "flower",
            processes.flower(address=self._flower.address, port=self._flower.port, app=self._app),
            extra=self._flower.environment,
        )

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
            client.conf.update(
                celery_settings(broker_url=self.redis_url, key_prefix=f"{self._redis_prefix}:", concurrency=1)
            )
            for node in nodes:
                inspect = client.control.inspect(destination=[f"{node}@{gethostname()}"], timeout=0.5)
                self._wait_until(f"{node}-worker", partial(_answers_ping, inspect), READY_LIMIT)

    def _wait_for_page(self, name: str, url: str) -> None:
        with httpx.Client(timeout=2, trust_env=False) as client:  # no proxy to our own processes

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
                    f"{name} exited while it started ({child.exit_description()}). "
                    f"Its log, {child.status().log}, ends:\n{child.last_lines()}"
                )
            return ready()

        if self._poll(ready_or_dead, limit):
            child.mark_ready()
            return
        reason = "cancelled" if self._stop.is_set() else f"waited {limit.total_seconds():.0f} s"
        raise StartFailed(
            f"{name} was not ready ({reason}). Its log, {child.status().log}, ends:\n{child.last_lines()}"
        )

    def _poll(self, condition: Callable[[], bool], limit: timedelta) -> bool:
        """False when the limit has passed, or the shutdown has begun, before the condition holds."""
        until = time.monotonic() + limit.total_seconds()
        while not condition():
            if time.monotonic() > until or self._stop.wait(0.05):
                return False
        return True

    def _stop_all(self) -> None:
        workers = (f"{processes.ARCHIVE_NODE}-worker", f"{processes.CONTROL_NODE}-worker")
        # Beat first: nothing new is sent. Workers before Valkey: they return their messages to it.
        self._stop_stage(["beat"])
        self._stop_stage([*workers, "flower", "serve"], extra_grace=SOFT_SHUTDOWN)
        if self._flower is not None:
            forget_flower_url(self._state_dir)
        self._stop_stage([companion.name for companion in self._companions])
        self._stop_stage(["valkey"])

    def _stop_stage(self, names: Sequence[str], *, extra_grace: timedelta = timedelta()) -> None:
        children = [self._children[name] for name in names if name in self._children]
        for child in children:
            child.ask_to_stop()
        until = time.monotonic() + (STOP_GRACE + extra_grace).total_seconds()
        while any(child.is_alive() for child in children) and time.monotonic() < until:
            if self._kill_now.wait(0.05):
                break
        for child in children:
            child.kill()


def _answers_ping(inspect: Inspect) -> bool:
    return bool(inspect.ping())
