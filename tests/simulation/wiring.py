"""The fleet's services, wired as `worker.bootstrap` does it, on doubles of everything outside of the process. What the
product takes from the operating system (clocks, threads, random numbers) is replaced in `virtual`."""

from __future__ import annotations

import heapq
import random
import secrets
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import structlog

import archiver.core.attempt.heartbeat
import archiver.core.attempt.settling
import archiver.core.attempt.stored_journal
import archiver.core.contents.hls.access
import archiver.core.destinations.probing
import archiver.core.forecast
import archiver.core.replication.object_copier
import archiver.core.replication.replicator
import archiver.core.restore.reading
import archiver.core.restore.restorer
import archiver.core.upkeep.erasing
import archiver.http.waiting
import archiver.ledger.memory.facts
import storage_backends.memory
import worker.alerts.alerter
from archiver.core.alerts import Message
from archiver.core.attempt.archiver import Archiver
from archiver.core.attempt.context import Rules
from archiver.core.attempt.decisions import RetryRules
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.contents.opening import ContentsOpener
from archiver.core.destinations.checked import Destinations
from archiver.core.destinations.guarded import guarded
from archiver.core.destinations.probing import tell_time
from archiver.core.destinations.write_probe import WriteProbe
from archiver.core.judging import Scope
from archiver.core.records import keys
from archiver.core.replication.repairer import Repairer
from archiver.core.replication.replicator import Replicator
from archiver.core.restore.decoding import Played
from archiver.core.restore.drill import Driller, DrillRules
from archiver.core.upkeep.dispatch import Dispatcher
from archiver.core.upkeep.erasing import Eraser
from archiver.core.upkeep.expiring import Expirer
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.scrub import Scrubber
from archiver.core.upkeep.sweep import Sweeper
from archiver.core.upkeep.terms import FOR_EVER, Terms
from archiver.core.upkeep.watch import Watcher
from archiver.http.loop import Timer
from archiver.ledger.base import Ledger
from archiver.ledger.clock import LedgerClock
from archiver.ledger.models import Row
from archiver.transfer.base import Engine, UploadJournal
from archiver.transfer.engine import TransferEngine
from archiver.transfer.memory import MemoryBudget
from storage_backends.base import StorageBackend
from tests.simulation.ledgers import Json, Secrets, SimLedger
from tests.simulation.scheduler import HOUR, MINUTE, Process, Scheduler
from tests.simulation.sources import SimApi, SimClient, Sources
from tests.simulation.stores import SimStore
from tests.simulation.truth import RETENTION
from tests.transfer.single_threaded import SingleThreaded

PART_BYTES = 4096
MEMORY_PARTS = (2, 3, 64)  # of a process: copies wait for it, or never
ROOM_BYTES = 64 * 1024  # the probes' megabytes of random bytes were half of the time that a run took
FORECAST_PATHS = 12  # each may replay 1,440 hours
LEASE = timedelta(minutes=2)
LEASE_RENEW = timedelta(seconds=30)
SWEEP_EVERY = 2 * HOUR
DISPATCH_EVERY = 15 * MINUTE
AT_RISK = timedelta(days=3)
DRILL_DAYS = 3
DRILLED_AT_ONCE = 3
SCOPE = Scope(RETENTION)

Send = Callable[[Row, bool], None]


@dataclass
class Services:
    ledger: Ledger
    stores: Sequence[SimStore]
    archiver: Archiver
    sweeper: Sweeper
    dispatcher: Dispatcher
    reconciler: Reconciler
    scrubber: Scrubber
    watcher: Watcher
    write_probe: WriteProbe
    replicator: Replicator
    driller: Driller
    eraser: Eraser
    expirer: Expirer
    clock: LedgerClock
    identities: Destinations
    destinations: Sequence[StorageBackend]


def build(
    process: Process,
    ledger: SimLedger,
    sources: Sources,
    stores: Sequence[SimStore],
    send: Send,
    quorum: int | None,
    keep_days: int | None,
    scratch: Path,
) -> Services:
    """`scratch`: a folder of this process alone."""
    api = SimApi(process, sources)
    known: Any = ledger  # by its Protocol
    clock = LedgerClock(known, elapsed=process.since_boot)
    identities = Destinations(
        ledger=known,
        stores=list(stores),
        workspace="workspace",
        clock=clock,
        machine=process.name,
        failure_lifetime=timedelta(seconds=3 * SWEEP_EVERY),
        pause=process.sleep,
    )
    destinations: Any = guarded(list(stores), identities)
    seed = process.scheduler.rng.randrange(2**32)
    memory = MemoryBudget(MEMORY_PARTS[seed % len(MEMORY_PARTS)] * PART_BYTES)

    def engine(journal: UploadJournal, heartbeat: Heartbeat) -> Engine:
        return TransferEngine(
            memory,
            part_bytes=PART_BYTES,
            connections=3,
            uploads=3,
            journal=journal,
            on_bytes=heartbeat.moved,
            should_stop=heartbeat.check,
            should_yield=heartbeat.should_yield,
            runtime=VirtualRuntime(process, seed),
        )

    eraser = Eraser(ledger=known, destinations=destinations, clock=clock)
    expirer = Expirer(
        ledger=known,
        destinations=destinations,
        eraser=eraser,
        terms=Terms(keep_days or FOR_EVER),
        clock=clock,
    )
    reconciler = Reconciler(
        ledger=known,
        destinations=destinations,
        scope=SCOPE,
        clock=clock,
        identities=identities,
        eraser=eraser,
        expirer=expirer,
    )
    return Services(
        ledger=known,
        stores=stores,
        archiver=Archiver(
            api=api,
            ledger=known,
            destinations=destinations,
            open_contents=ContentsOpener(api, SimClient(process, sources), sleep=process.sleep),
            engine=engine,
            rules=Rules(
                scope=SCOPE,
                retry=RetryRules(),
                key_template=keys.DEFAULT_TEMPLATE,
                lease=LEASE,
                lease_renew=LEASE_RENEW,
                archiver_version="simulated",
                near_deadline=AT_RISK,
                quorum=quorum,
            ),
            clock=clock,
            pause=process.sleep,
            time_at=lambda store: tell_time(store, known),
        ),
        sweeper=Sweeper(api=api, ledger=known, scope=SCOPE, clock=clock, rebuild=reconciler.reconcile),
        dispatcher=Dispatcher(ledger=known, send=send, clock=clock, window=8, urgent_within=AT_RISK),
        reconciler=reconciler,
        scrubber=Scrubber(
            ledger=known,
            destinations=destinations,
            clock=clock,
            pause=process.sleep,
            term_is_over=expirer.term_is_over,
        ),
        watcher=Watcher(
            ledger=known, clock=clock, at_risk_within=AT_RISK, sweep_every=timedelta(seconds=SWEEP_EVERY)
        ),
        write_probe=WriteProbe(ledger=known, destinations=destinations, clock=clock, machine=process.name),
        replicator=Replicator(
            ledger=known,
            destinations=destinations,
            repairer=Repairer(
                ledger=known,
                destinations=destinations,
                engine=engine,
                lease=LEASE,
                lease_renew=LEASE_RENEW,
                clock=clock,
                read_bytes=PART_BYTES,
            ),
            clock=clock,
            concurrency=1,
            pause=process.sleep,
        ),
        driller=Driller(
            ledger=known,
            destinations=destinations,
            clock=clock,
            rules=DrillRules(DRILLED_AT_ONCE, timedelta(days=DRILL_DAYS), scratch),
            decode=lambda _path: (Played.YES, ""),
            elapsed=process.monotonic,
            term_is_over=expirer.term_is_over,
        ),
        eraser=eraser,
        expirer=expirer,
        clock=clock,
        identities=identities,
        destinations=destinations,
    )


class VirtualRuntime(SingleThreaded):
    """Its timers are those of the scheduler: when there is nothing else to do, the process sleeps until the next."""

    def __init__(self, process: Process, seed: int) -> None:
        super().__init__(seed)
        self._process = process

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        self.now = self._process.monotonic()
        return super().call_later(seconds, action)

    def step(self) -> bool:
        timers = self._timers
        while timers and timers[0][2].action is None:  # cancelled
            timers.pop(0) if len(timers) == 1 else self._drop_first()
        if timers and (timers[0][0] <= self._process.monotonic() or not self._ready):
            wait = timers[0][0] - self._process.monotonic()
            if wait > 0:
                self._process.sleep(wait)
            timer = self._drop_first()
            if timer.action is not None:
                timer.action()
            return True
        return super().step()

    def _drop_first(self) -> Timer:
        return heapq.heappop(self._timers)[2]


# -- instead of the operating system ---------------------------------------------------------------------------
class Threads:
    """Instead of the module `threading`, for the heartbeat: threads are greenlets of the process that runs."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def Lock(self) -> SimLock:  # noqa: N802 - as the module has it
        return SimLock(self._scheduler)

    def Event(self) -> SimEvent:  # noqa: N802
        return SimEvent(self._scheduler)

    def Thread(  # noqa: N802
        self, *, target: Callable[[], None], name: str, daemon: bool
    ) -> SimThread:
        return SimThread(self._scheduler, target)


class SimLock:
    """Held across calls to the ledger, so that a greenlet which waits for it must let the others go on."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held and not self._scheduler.in_hub:
            assert self._scheduler.running is not None
            self._scheduler.running.sleep(0.01)
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False


class SimEvent:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float) -> bool:
        assert self._scheduler.running is not None
        if not self._is_set:
            self._scheduler.running.sleep(timeout)
        return self._is_set


class SimThread:
    def __init__(self, scheduler: Scheduler, target: Callable[[], None]) -> None:
        self._process = scheduler.running
        self._target = target
        self._ended = False

    def start(self) -> None:
        def run() -> None:
            self._target()
            self._ended = True

        assert self._process is not None
        self._process.spawn(run)

    def join(self, timeout: float) -> None:
        assert self._process is not None
        while not self._ended and timeout > 0:
            self._process.sleep(0.5)
            timeout -= 0.5


class Inline:
    """Instead of `ThreadPoolExecutor`: what is submitted is done at once, by the process that submits it."""

    def __init__(self, *_: object, **__: object) -> None:
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def submit(self, function: Callable[..., Any], *given: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*given))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, function: Callable[[Any], Any], given: Iterable[Any]) -> Iterator[Any]:
        return map(function, given)

    def shutdown(self, **_: object) -> None:
        return


class SimHeartbeatStarter:
    """`core.attempt.heartbeat_starter.HeartbeatStarter` of all processes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: set[Callable[[], None]] = set()

    def add(self, begin: Callable[[], None], after_seconds: float) -> None:
        process = self._scheduler.running
        assert process is not None
        life = process.lives
        self._waiting.add(begin)

        def due() -> None:
            if process.lives != life or not process.alive or begin not in self._waiting:
                return
            if process.paused_until > self._scheduler.seconds:
                self._scheduler.at(process.paused_until, due)
                return
            self._waiting.discard(begin)
            self._scheduler.running = process
            begin()

        self._scheduler.at(self._scheduler.seconds + after_seconds, due)

    def remove(self, begin: Callable[[], None]) -> None:
        self._waiting.discard(begin)


class _Uuids:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def uuid4(self) -> uuid.UUID:
        return uuid.UUID(int=self._rng.getrandbits(128))


class Logs:
    """Keeps the alarms, and drops everything else."""

    def __init__(self) -> None:
        self.alarmed: set[str] = set()
        self.errors: list[str] = []

    def __call__(
        self, _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if event.get("event") == "asset_at_risk":
            self.alarmed.add(str(event["asset_id"]))
        if method in ("error", "critical"):
            self.errors.append(str(event.get("event")))
        raise structlog.DropEvent


@contextmanager
def virtual(scheduler: Scheduler, logs: Logs) -> Iterator[None]:
    """Within the block the product sees virtual time, greenlets as threads and seeded random numbers."""
    rng = random.Random(scheduler.seed + 1)
    beats = SimHeartbeatStarter(scheduler)

    def monotonic() -> float:
        return scheduler.running.monotonic() if scheduler.running is not None else scheduler.seconds

    def pause(seconds: float) -> None:
        assert scheduler.running is not None
        scheduler.running.sleep(seconds)

    def wall_clock() -> datetime:
        return scheduler.running.wall_clock() if scheduler.running is not None else scheduler.now()

    def machine() -> str:
        assert scheduler.running is not None
        return scheduler.running.name

    def title_of(message: Message) -> str:
        """Keep what is sent, not its text."""
        assert scheduler.running is not None
        scheduler.running.telling = message
        return "alert"

    replaced: list[tuple[Any, str, Any]] = [
        (archiver.core.attempt.heartbeat, "heartbeat_starter", lambda: beats),
        (archiver.core.attempt.heartbeat, "threading", Threads(scheduler)),
        (archiver.core.attempt.heartbeat, "time", types.SimpleNamespace(monotonic=monotonic)),
        (archiver.core.attempt.stored_journal, "time", types.SimpleNamespace(monotonic=monotonic)),
        (archiver.core.attempt.settling.settle, "__kwdefaults__", {"clock": monotonic}),
        (archiver.core.destinations.probing, "time", types.SimpleNamespace(monotonic=monotonic)),
        (archiver.core.destinations.probing, "_left", {}),
        (archiver.core.destinations.probing, "ROOM_BYTES", ROOM_BYTES),
        (worker.alerts.alerter, "title_of", title_of),
        (worker.alerts.alerter, "datetime", types.SimpleNamespace(now=wall_clock)),
        (archiver.core.upkeep.erasing.Eraser, "_each", lambda _self, items, act: [act(one) for one in items]),
        (archiver.core.forecast, "PATHS", FORECAST_PATHS),
        (archiver.core.replication.object_copier, "ThreadPoolExecutor", Inline),
        (archiver.core.restore.reading, "ThreadPoolExecutor", Inline),
        (archiver.core.restore.restorer, "ThreadPoolExecutor", Inline),
        (archiver.core.replication.replicator, "ThreadPoolExecutor", Inline),
        (archiver.core.replication.replicator, "socket", types.SimpleNamespace(gethostname=machine)),
        (archiver.http.waiting, "pause", pause),
        (archiver.core.contents.hls.access.TreeAccess.__init__, "__defaults__", (monotonic,)),
        (archiver.ledger.memory.facts, "json", Json),
        *_everywhere("secrets", secrets, Secrets(rng)),
        *_everywhere("uuid", uuid, _Uuids(rng)),
        (storage_backends.memory, "datetime", types.SimpleNamespace(now=lambda _utc: scheduler.now())),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    log_settings = structlog.get_config()
    state = random.getstate()
    structlog.configure(processors=[logs], cache_logger_on_first_use=False)
    random.seed(scheduler.seed)
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        random.setstate(state)
        structlog.configure(**log_settings)


def _everywhere(name: str, module: object, value: Any) -> Iterator[tuple[Any, str, Any]]:
    """Every module of the product that imports `module`."""
    for where, found in sorted(sys.modules.items()):
        ours = where.startswith(("archiver.", "storage_backends."))
        if ours and getattr(found, name, None) is module:
            yield found, name, value
