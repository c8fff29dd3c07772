"""One run: a seed makes the assets, the faults and the fleet, and decides in which order everything happens."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from archiver.core.errors import ArchiveError
from archiver.core.health import ATTENTION_STATES
from archiver.core.records.keys import ENDS, MARKER
from archiver.core.replication.selection import NAMED_STATES, Wanted
from archiver.core.upkeep import review
from archiver.core.upkeep.expiring import FACT as EXPIRY_FACT
from archiver.core.upkeep.retrying import retry
from archiver.core.upkeep.review import acknowledge
from archiver.core.upkeep.terms import Terms, latest_archived_at
from archiver.hms.errors import HmsError
from archiver.ledger.errors import LedgerError
from archiver.ledger.models import AssetState, Row
from storage_backends.errors import StorageError
from tests.simulation.alerting import CHANNELS, LOOK_EVERY, AlertOracle, open_channels
from tests.simulation.drills import DrillOracle
from tests.simulation.faults import Fault, Faults
from tests.simulation.ledgers import AuditedLedger, SimLedger
from tests.simulation.oracle import Oracle
from tests.simulation.retention import LockingStore, Retention
from tests.simulation.scheduler import DAY, HOUR, MINUTE, Process, Scheduler, Violation, Weather
from tests.simulation.sources import CLOCK_FAULTS, Sources
from tests.simulation.stores import MANIFESTS, WORKERS_DENIED, Conditional, Destination, SimStore
from tests.simulation.truth import TrueAsset, make_assets
from tests.simulation.wiring import DISPATCH_EVERY, LEASE, SWEEP_EVERY, Logs, Services, build, virtual
from worker.alerts.alerter import Alerter
from worker.verify import verify

STORM = 6 * DAY
SETTLED = STORM + 19 * DAY  # all deadlines are past, and a day or two
END = SETTLED + 18 * DAY
ASSETS = 14
LOCK_DAYS = (3, 9)
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where drills restore to: in memory where the system has such a folder, since they sync each file."""

SOURCE_FAULTS = [
    "503", "429", "403", "404", "cut", "cut", "unframed", "wrong bytes", "wrong bytes", "error page", "slow",
    "no ranges", "refused", "silent", "404 on one file", "only the first half",
]  # fmt: skip

EXPECTED = (HmsError, LedgerError, StorageError)
"""What may come out of a task; anything else is a defect."""


@dataclass(frozen=True)
class Outcome:
    seed: int
    digest: str
    events: int
    violation: Violation | None
    tail: tuple[str, ...]
    states: dict[str, int]


class Broker:
    """Messages are lost, doubled and late."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._queues: dict[str, deque[Any]] = {"urgent": deque(), "archive": deque(), "control": deque()}
        self._waiting: dict[str, deque[Callable[[], None]]] = {"archive": deque(), "control": deque()}

    def send(self, queue: str, message: Any) -> None:
        rng = self._scheduler.rng
        roll = rng.random()
        stormy = self._scheduler.weather.any > 0
        if stormy and roll < 0.01:
            return
        copies = 2 if stormy and roll > 0.98 else 1
        for _ in range(copies):
            self._queues[queue].append(message)
            waiting = self._waiting["control" if queue == "control" else "archive"]
            if waiting:
                waiting.popleft()()

    def take(self, process: Process, *queues: str) -> Any:
        while True:
            for queue in queues:
                if self._queues[queue]:
                    return self._queues[queue].popleft()
            self._waiting[queues[-1]].append(process.parked())
            process.park()


class Fleet:
    def __init__(self, seed: int) -> None:
        self.scheduler = scheduler = Scheduler(seed)
        rng = scheduler.rng
        self.faults = Faults()
        self.logs = Logs()
        assets = make_assets(rng, ASSETS, STORM - DAY)
        self.sources = Sources(scheduler, self.faults, assets)
        self.ledger = AuditedLedger(scheduler.now)
        names = ["one", "two"][: rng.choice([1, 2])]
        self.destinations = [
            Destination(
                scheduler,
                self.faults,
                name,
                checksums=rng.random() < 0.7,
                conditions=rng.choice(list(Conditional)),
                no_overwrite=rng.random() < 0.1,
            )
            for name in names
        ]
        locks = random.Random(f"locks of {scheduler.seed}")
        for store in self.destinations:
            if locks.random() < 0.3 and not store.no_overwrite:
                store.retention = Retention(scheduler, days=locks.randint(*LOCK_DAYS))
        self.quorum = scheduler.keepers_rng.choice([None, 1]) if len(names) > 1 else None
        self.keep_days = scheduler.keepers_rng.choice([None, None, 20, 26])
        self.oracle = Oracle(
            scheduler,
            self.faults,
            self.sources.assets,
            self.destinations,
            self.ledger,
            self.logs,
            on_lease=self.leased,
            quorum=self.quorum or len(names),
            keep_days=self.keep_days,
        )
        for store in self.destinations:
            store.audit = self.oracle
        self._scratch = Path()  # of the drills
        self.drills = DrillOracle(self.oracle, self.ledger)
        self.alerts = AlertOracle(self.oracle, self.ledger, self.faults, self.destinations)
        self.oracle.alerts = self.alerts
        self.broker = Broker(scheduler)
        self._soon: list[tuple[float, Callable[[], None]]] = []  # from when on, and what
        self._snapshots: deque[bytes] = deque(maxlen=4)
        self._services: dict[str, Services] = {}
        self.workers = [Process(scheduler, f"worker-{n}", self._work) for n in range(rng.randrange(2, 5))]
        self.controls = [Process(scheduler, "control-0", self._control)]
        self.beats = [Process(scheduler, f"beat-{n}", self._beat) for n in range(2)]
        self.servers = [Process(scheduler, f"serve-{n}", self._serve) for n in range(2)]
        self.operator = Process(scheduler, "operator", self._operate)
        self.keeper = Process(scheduler, "keeper", self._keep)
        self.others_rng = random.Random(f"others of {scheduler.seed}")  # of what only some faults need
        self.second_keepers = [Process(scheduler, "keeper-2", self._keep_too)] if len(names) > 1 else []
        self._to_be_repaired: deque[str] = deque()
        self._wake_second_keeper: Callable[[], None] = lambda: None
        for beat in self.beats:
            beat.immortal = True

    # -- the run -----------------------------------------------------------------------------------------------
    def run(self) -> Outcome:
        scheduler = self.scheduler
        with virtual(scheduler, self.logs), TemporaryDirectory(prefix="drills-", dir=SCRATCH) as scratch:
            self._scratch = Path(scratch)
            violation: Violation | None = None
            try:
                self._begin()
                scheduler.run_until(STORM)
                self._calm()
                scheduler.run_until(SETTLED)
                self.oracle.settled_down()
                scheduler.run_until(END)
                self.oracle.look()
                self.oracle.all_unlocked()
                self.oracle.all_read()
                self.drills.all_drilled()
                if scheduler.violation is not None:
                    raise scheduler.violation
            except Violation as found:
                violation = found
            finally:
                digest, events = scheduler.digest, scheduler.steps
                tail = tuple(scheduler.tail)
                scheduler.close()
        states = {str(state): n for state, n in self.ledger.counts().states.items() if n}
        return Outcome(scheduler.seed, digest, events, violation, tail, states)

    def _begin(self) -> None:
        scheduler, rng = self.scheduler, self.scheduler.rng
        fierce = rng.choice([0.3, 1.0, 2.0])
        scheduler.weather = Weather(
            kill=0.002 * fierce,
            pause=0.002 * fierce,
            lose=0.005 * fierce,
            longest_pause_seconds=6 * HOUR,
            pause_at_commit=0.1,
            change_in_tree=0.1,
        )
        self._plan_faults()
        for process in self._processes():
            draw = rng
            if process is self.keeper:
                draw = scheduler.keepers_rng
            elif process in self.second_keepers:
                draw = self.others_rng
            process.wall_skew = draw.choice(
                [0.0, draw.uniform(-5, 5), *(draw.uniform(-3 * DAY, 3 * DAY) for _ in range(2))]
            )
            process.start()
        scheduler.every(lambda: 6 * HOUR, self.oracle.look, first=HOUR)
        scheduler.every(lambda: HOUR / 2, self.alerts.sample)
        scheduler.every(lambda: 4 * HOUR, self._snapshot)
        losses = rng.choice([0, 0, 1, 2])
        self._soon = [(rng.uniform(HOUR, STORM), self._flush_or_roll_back) for _ in range(losses)]
        if not losses:  # nobody could tell an empty directory from a new destination without the ledger
            unmounts = rng.choice([0, 1, 1, 2])
            self._soon += [(rng.uniform(DAY, STORM - HOUR), self._unmount) for _ in range(unmounts)]
        if rng.random() < 0.5:  # in the calm: what is gone at the source is known to the buckets alone
            scheduler.at(rng.uniform(STORM + 2 * DAY, SETTLED - 3 * DAY), self._flush_or_roll_back)
        if self.others_rng.random() < 0.25:  # once something has ended that 100ms does not list any more
            scheduler.at(self.others_rng.uniform(SETTLED - 6 * DAY, SETTLED - 3 * DAY), self._flush)
        self._soon += [(rng.uniform(0, STORM), self._harm_new) for _ in range(rng.choice([0, 0, 1, 2]))]
        for _ in range(rng.choice([0, 1, 2, 3])):
            scheduler.at(rng.uniform(DAY, SETTLED - 4 * DAY), lambda: self._harm(rng))
        keepers = scheduler.keepers_rng
        for _ in range(keepers.choice([1, 2, 3]) if len(self.destinations) > 1 else 0):
            harm = keepers.choice([self._harm, self._harm_all_of_one])
            scheduler.at(keepers.uniform(STORM, SETTLED), partial(harm, keepers))
        if self.keep_days is not None:
            for _ in range(4):
                scheduler.at(keepers.uniform(self.keep_days * DAY, END - 3 * DAY), self._delete_by_rule)

    def _processes(self) -> tuple[Process, ...]:
        return (
            *self.workers,
            *self.controls,
            *self.beats,
            *self.servers,
            self.operator,
            self.keeper,
            *self.second_keepers,
        )

    def leased(self, asset_id: str) -> None:
        """What is to happen soon happens in the middle of an attempt."""
        process = self.scheduler.running
        assert process is not None
        if process.is_replicating and process not in self.second_keepers and self.others_rng.random() < 0.5:
            process.at_next_commit = partial(self._repair_twice, process, asset_id)
        for entry in [entry for entry in self._soon if entry[0] <= self.scheduler.seconds]:
            self._soon.remove(entry)
            self.scheduler.at(self.scheduler.seconds + self.scheduler.rng.uniform(0, 2), entry[1])

    def _repair_twice(self, process: Process, asset_id: str) -> None:
        """A repair is paused just before its commit, and somebody else repairs the asset: while the lease lasts, and
        once it is over."""
        process.pause(self.others_rng.uniform(4 * MINUTE, 10 * MINUTE))
        for seconds in (self.others_rng.uniform(0, MINUTE), 1.1 * LEASE.total_seconds()):
            self.scheduler.at(self.scheduler.seconds + seconds, partial(self._ask_second_keeper, asset_id))

    def _ask_second_keeper(self, asset_id: str) -> None:
        self._to_be_repaired.append(asset_id)
        self._wake_second_keeper()

    def _calm(self) -> None:
        self.oracle.calm_from = self.scheduler.seconds
        self.scheduler.weather = Weather()
        for process in self._processes():
            process.paused_until = min(process.paused_until, self.scheduler.seconds + HOUR)

    def _plan_faults(self) -> None:
        rng = self.scheduler.rng
        kinds: list[tuple[str, list[str]]] = [
            ("api", ["503", "429", "403", "404", "garbled"]),
            (f"api:{self.workers[0].name}", ["403"]),
            ("ledger", ["away", "read only"]),
            ("api rows", ["without id"]),
            *((f"channel:{channel.name}", ["503"]) for channel in CHANNELS),
            ("source", SOURCE_FAULTS),
            *(
                (f"store:{store.name}", ["503", "flaky", "denied", "full", "read only", "bucket missing", "corrupting"])
                for store in self.destinations
            ),
        ]  # fmt: skip
        for _ in range(rng.randrange(4, 14)):
            where, names = rng.choice(kinds)
            near = rng.choice(sorted(self.sources.assets.values(), key=lambda asset: asset.number))
            self._add_fault(where, rng.choice(names), near.listed_from + rng.uniform(-HOUR, HOUR / 2))
        if self.others_rng.random() < 0.7:
            store = self.others_rng.choice(self.destinations)
            near = self.others_rng.choice([each for each in self.sources.assets.values() if each.created > 0])
            start = near.listed_from - self.others_rng.uniform(0, HOUR)
            end = min(start + self.others_rng.uniform(12 * HOUR, 2 * DAY), STORM)
            self.faults.add(Fault(f"store:{store.name}", WORKERS_DENIED, start, end))
        for asset in self.sources.assets.values():
            self._plan_faults_of(asset)
        for _ in range(rng.choice([0, 1, 1])):
            start = rng.uniform(0, SETTLED - 4 * DAY)
            kind = rng.choice(list(CLOCK_FAULTS))
            self.faults.add(Fault("api clock", kind, start, start + rng.uniform(6 * HOUR, 3 * DAY)))
        if rng.random() < 0.6:  # it is never had
            never = rng.choice(sorted(self.sources.assets.values(), key=lambda asset: asset.created)[:8])
            self.faults.add(Fault(f"source:{never.id}", rng.choice(["403", "404"]), 0.0, END))
            start, end = never.created + 15.5 * DAY, never.created + 17 * DAY  # it would be lost meanwhile
            if self.others_rng.random() < 0.4 and start > 0 and end < SETTLED - 4 * DAY:
                kind = self.others_rng.choice(list(CLOCK_FAULTS))
                self.faults.add(Fault("api clock", kind, start, end))

    def _plan_faults_of(self, asset: TrueAsset) -> None:
        """While it is copied for the first time, and, of what changes at its source, until a moment after that."""
        rng = self.scheduler.rng
        where, start = f"source:{asset.id}", max(asset.ready_from - HOUR, 0.0)
        changes_at = asset.versions[-1].since
        if start < changes_at < STORM - HOUR and rng.random() < 0.8:
            self.faults.add(Fault(where, "only the first half", start, changes_at + rng.uniform(0, MINUTE)))
        elif asset.checksums and not asset.is_tree and rng.random() < 0.3:
            self._add_fault(where, "wrong bytes", start)
        elif rng.random() < (0.7 if asset.is_tree else 0.4):
            half = asset.is_tree and rng.random() < 0.5
            self._add_fault(where, "404 on one file" if half else rng.choice(SOURCE_FAULTS), start)

    def _add_fault(self, where: str, kind: str, start: float) -> None:
        rng = self.scheduler.rng
        length = HOUR + rng.choice([5 * MINUTE, HOUR, 6 * HOUR, rng.uniform(0, 2 * DAY)])
        fault = Fault(where, kind, start, min(start + length, STORM))
        self.faults.add(fault)
        self.scheduler.note("world", f"{fault}")

    def _unmount(self) -> None:
        rng = self.scheduler.rng
        store = rng.choice(self.destinations)
        now = self.scheduler.seconds
        # an empty folder in place of a destination that nobody has identified yet is a new destination to anybody
        if now < STORM and MARKER in store.objects:
            self.scheduler.note("world", f"{store.name} is unmounted")
            self.faults.add(
                Fault(
                    f"store:{store.name}", "unmounted", now, min(now + rng.uniform(10 * MINUTE, DAY), STORM)
                )
            )

    # -- what happens to the fleet -----------------------------------------------------------------------------
    def _snapshot(self) -> None:
        if self.scheduler.seconds < STORM:
            self._snapshots.append(self.ledger.snapshot())

    def _flush_or_roll_back(self) -> None:
        if not self._snapshots or self.scheduler.rng.random() >= 0.5:
            self._flush()
            return
        self.alerts.ledger_is_lost()
        self.scheduler.note("world", "the ledger is rolled back")
        self.ledger.restore(self._snapshots[0])
        self.oracle.new_epoch(flushed=False)

    def _flush(self) -> None:
        self.alerts.ledger_is_lost()
        self.scheduler.note("world", "the ledger is flushed")
        self.ledger.clear()
        self.oracle.new_epoch(flushed=True)

    def _harm_new(self) -> None:
        """Somebody deletes what is being copied."""
        rng = self.scheduler.rng
        store = rng.choice(self.destinations)
        newest = max(
            (key for key in store.objects if key.startswith("recordings/")),
            key=lambda key: (store.objects[key].info.updated_at, key),
            default=None,
        )
        if newest is not None:
            self._do_harm(store, newest, "object deleted")

    def _harm_all_of_one(self, rng: random.Random) -> None:
        """Somebody deletes a copy, and its manifest."""
        store = rng.choice(self.destinations)
        if (manifest := store.some_key(rng, manifests=True)) is not None:
            asset_id = manifest.rsplit("/", 1)[1].removesuffix(".json")
            for key in [key for key in store.objects if f"/{asset_id}" in key and not key.startswith(ENDS)]:
                self._do_harm(store, key, "manifest deleted" if key == manifest else "object deleted")

    def _delete_by_rule(self) -> None:
        """A lifecycle rule of the buckets deletes an asset, the objects first. It counts from when each object was
        written. What the ledger counts from later (a repair, its own loss), and terms that nobody has accepted, are
        left out: that is damage to it."""
        now, expiry = self.scheduler.seconds, self.oracle.expiry
        over = [row.asset_id for row in self.ledger.all_rows() if self._is_due_by_rule(row)]
        accepted = Terms.from_fact((self.ledger.recall(EXPIRY_FACT) or {}).get("terms"))
        clocks = self.faults.windows("api clock")
        are_clocks_right = not any(start < now + 2 * DAY and end > now - 2 * DAY for start, end in clocks)
        is_known = are_clocks_right and self.oracle.epoch_began < now - 2 * DAY
        if not over or not is_known or accepted != Terms(self.keep_days or 0):
            return
        asset_id = self.scheduler.keepers_rng.choice(sorted(over))
        expiry.deleted_by_rule[asset_id] = self.oracle.epoch
        self.scheduler.note("world", f"a rule of the buckets deletes {asset_id}")
        for store, key in self._objects_of(asset_id):
            if key.startswith(MANIFESTS):
                self.scheduler.at(now + 10 * HOUR, partial(store.remove, key))
            else:
                store.remove(key)

    def _is_due_by_rule(self, row: Row) -> bool:
        if row.state is not AssetState.ARCHIVED or self.oracle.expiry.ends_at(row.asset_id) is None:
            return False
        written = [
            at
            for store, key in self._objects_of(row.asset_id)
            if (at := store.objects[key].info.updated_at) is not None
        ]
        latest = max(*written, latest_archived_at(row), row.created_at or self.scheduler.now())
        return latest + timedelta(days=self.keep_days or 0, hours=1) < self.scheduler.now()

    def _objects_of(self, asset_id: str) -> list[tuple[Destination, str]]:
        return [
            (store, key)
            for store in self.destinations
            for key in store.objects
            if f"/{asset_id}" in key and not key.startswith(ENDS)
        ]

    def _harm(self, rng: random.Random) -> None:
        store = rng.choice(self.destinations)
        kind = rng.choice(["rot", "object deleted", "manifest deleted"])
        key = store.some_key(rng, manifests=kind == "manifest deleted")
        if key is not None:
            self._do_harm(store, key, kind)

    def _do_harm(self, store: Destination, key: str, kind: str) -> None:
        asset_id = next(part for part in key.removesuffix(".json").split("/") if part in self.sources.assets)
        self.oracle.harm(store, asset_id, kind, key)
        if kind == "rot":
            store.rot(key)
        else:
            store.remove(key)

    # -- what processes do -------------------------------------------------------------------------------------
    def _built(self, process: Process) -> Services:
        ledger = SimLedger(process, self.ledger, self.faults, self.oracle)
        stores = [_store(process, store) for store in self.destinations]

        def send(row: Row, urgent: bool) -> None:
            self.broker.send("urgent" if urgent else "archive", row.asset_id)

        scratch = self._scratch / f"{process.name}-{process.lives}"  # a killed process unlocks nothing here
        return build(process, ledger, self.sources, stores, send, self.quorum, self.keep_days, scratch)

    def _work(self, process: Process) -> None:
        services = self._built(process)
        while True:
            asset_id = self.broker.take(process, "urgent", "archive")
            try:
                services.archiver.archive(asset_id, process.name)
            except EXPECTED as error:
                self.scheduler.note(process.name, f"failed: {type(error).__name__}")

    def _control(self, process: Process) -> None:
        services = self._built(process)
        tasks: dict[str, Callable[[], None]] = {
            "sweep": lambda: self._sweep(services),
            "dispatch": lambda: self._ignore(services.dispatcher.dispatch()),
            "watch": lambda: self._watch(services),
            "reconcile": lambda: self._reconcile(process, services),
            "scrub": lambda: self._ignore(services.scrubber.scrub()),
            "drill": lambda: self._drill(process, services),
        }
        while True:
            name, expires = self.broker.take(process, "control")
            if expires < self.scheduler.seconds:
                continue
            self.oracle.task_begins(process)
            self.scheduler.note(process.name, f"task {name}")
            try:
                tasks[name]()
                self.oracle.task_ended(process)
            except EXPECTED as error:
                self.scheduler.note(process.name, f"{name} failed: {type(error).__name__}")

    def _drill(self, process: Process, services: Services) -> None:
        began = self.scheduler.seconds
        with self._replicating(process):
            report = services.driller.drill_if_due()
        if report is not None:
            self.drills.ended(began)

    def _reconcile(self, process: Process, services: Services) -> None:
        if services.reconciler.reconcile() is not None:
            services.expirer.run()
            with self._replicating(process):
                services.replicator.replicate_due()

    @contextmanager
    def _replicating(self, process: Process) -> Iterator[None]:
        """It writes manifests under leases of its own, or none, and does not read for the scrub."""
        process.is_replicating = True
        try:
            yield
        finally:
            process.is_replicating = False

    def _watch(self, services: Services) -> None:
        """In a fleet the watch runs every minute, and the next one tells what a probe has found. Here, where it runs
        every two hours, the probe goes first."""
        began = self.scheduler.seconds
        services.write_probe.run()
        before = {row.asset_id: row for row in self.ledger.all_rows()}
        self.oracle.watched(services.watcher.watch(), began, before)

    def _sweep(self, services: Services) -> None:
        began = self.oracle.sweep_began = self.scheduler.seconds
        try:
            result = services.sweeper.sweep()
            if result is not None:
                self.oracle.has_swept(began)
            services.dispatcher.dispatch()
        finally:
            services.reconciler.check_destinations()

    def _serve(self, process: Process) -> None:
        """Two of them look, and later one alone, to the end."""
        services = self._built(process)
        alerter = Alerter(
            ledger=services.ledger,
            summarize=services.watcher.summary,
            channels=open_channels(process, self.faults, self.alerts, lambda: process.telling),
            digest_hour=-1,
            steady=process.monotonic,
            elapsed=process.since_boot,
        )
        rng = self.scheduler.rng
        while True:
            process.sleep(LOOK_EVERY * rng.uniform(0.7, 1.3) * (3 if self.scheduler.seconds > STORM else 1))
            alerter.look()
            if process is not self.servers[0] and self.scheduler.seconds > STORM:
                return

    @staticmethod
    def _ignore(_result: object) -> None:
        return

    def _beat(self, process: Process) -> None:
        """The second beat runs for some days: somebody started it by mistake."""
        intervals = {
            "sweep": SWEEP_EVERY,
            "dispatch": DISPATCH_EVERY,
            "watch": 2 * HOUR,
            "reconcile": 8 * HOUR,
            "scrub": DAY,
            "drill": DAY,
        }
        due = {name: self.scheduler.seconds + self.scheduler.rng.uniform(0, MINUTE) for name in intervals}
        due["scrub"] += HOUR
        due["watch"] += self.others_rng.uniform(
            0, DISPATCH_EVERY
        )  # not always when workers have just been busy
        while process is self.beats[0] or self.scheduler.seconds < 2 * DAY:
            name = min(due, key=lambda each: due[each])
            process.sleep(due[name] - self.scheduler.seconds)
            interval = intervals[name]
            if self.scheduler.seconds > STORM:  # little happens any more
                interval *= {"dispatch": 4, "sweep": 2, "watch": 3, "reconcile": 1.5}.get(name, 1)
            if self.scheduler.seconds > SETTLED:
                rare = 3 if self.keep_days else 6  # what expires waits for a sweep of the last day
                interval *= {"dispatch": 8, "sweep": rare, "watch": 2, "reconcile": 2}.get(name, 1)
            due[name] = self.scheduler.seconds + interval
            self.broker.send("control", (name, self.scheduler.seconds + 0.9 * interval))

    def _operate(self, process: Process) -> None:
        ledger: Any = SimLedger(process, self.ledger, self.faults, self.oracle)
        stores: Any = [_store(process, store) for store in self.destinations]
        rng = self.scheduler.rng
        while self.scheduler.seconds < SETTLED - 6 * DAY:
            process.sleep(rng.uniform(2 * HOUR, 2 * DAY))
            rows = sorted(self.ledger.all_rows(), key=lambda row: row.asset_id)
            verb = rng.choice(["retry", "again", "reject", "accept", "ack", "verify", "erase"])
            process.attempt_began = self.scheduler.seconds
            self.scheduler.note("operator", verb)
            try:
                if verb == "verify":
                    for checked in verify(stores, [], quick=rng.random() < 0.5):
                        self.scheduler.note("operator", f"{checked.asset_id} {checked.ok}")
                elif verb == "erase" and rows:
                    self._erase(process, rng.choice(rows).asset_id)
                elif verb in ("retry", "again") and rows:
                    asset_id, again = rng.choice(rows).asset_id, verb == "again"
                    retry(ledger, stores, asset_id, by="ann", why="seen", now=self.ledger.now(), again=again)
                elif doubted := [row for row in rows if row.state in ATTENTION_STATES]:
                    row = rng.choice(doubted)
                    say = {"accept": review.accept, "reject": review.reject, "ack": acknowledge}[verb]
                    if verb == "reject":
                        self.oracle.rejected.add(row.asset_id)
                    say(ledger, stores, row.asset_id, by="ann", why="seen", now=self.ledger.now())
            except (*EXPECTED, ArchiveError) as error:  # such as: it is not in such an end any more
                self.scheduler.note("operator", f"{verb} failed: {type(error).__name__}")

    def _keep(self, process: Process) -> None:
        """Another person, who replicates by hand."""
        rng = self.scheduler.keepers_rng
        services = self._built(process)
        names = [store.name for store in self.destinations]
        while self.scheduler.seconds < SETTLED:
            process.sleep(rng.uniform(6 * HOUR, 4 * DAY))
            if rng.random() < 0.5:
                self.scheduler.note("keeper", "expire --yes")
                try:
                    services.expirer.run(confirmed=True)
                except EXPECTED as error:
                    self.scheduler.note("keeper", f"failed: {type(error).__name__}")
            source, target = rng.choice([None, *names]), rng.choice(names)
            self.scheduler.note("keeper", f"replicate from {source} to {target}")
            try:
                with self._replicating(process):
                    services.replicator.replicate(Wanted(source, target, NAMED_STATES))
            except EXPECTED as error:
                self.scheduler.note("keeper", f"failed: {type(error).__name__}")

    def _keep_too(self, process: Process) -> None:
        """A third person, who replicates what another process replicates."""
        services = self._built(process)
        while True:
            while self._to_be_repaired:
                asset_id = self._to_be_repaired.popleft()
                self.scheduler.note(process.name, f"replicate {asset_id[-4:]}")
                wanted = Wanted(states=NAMED_STATES, chooses=lambda row, only=asset_id: row.asset_id == only)  # type: ignore[misc]
                try:
                    with self._replicating(process):
                        services.replicator.replicate(wanted)
                except EXPECTED as error:
                    self.scheduler.note(process.name, f"failed: {type(error).__name__}")
            self._wake_second_keeper = process.parked()
            process.park()

    def _erase(self, process: Process, asset_id: str) -> None:
        services = self._built(process)
        for removal in services.eraser.erase([asset_id], ticket="T-1", by="ann"):
            self.scheduler.note("operator", f"erase {asset_id[-4:]} {removal.state}: {removal.reason[:80]}")


def _store(process: Process, destination: Destination) -> SimStore:
    return (SimStore if destination.retention is None else LockingStore)(process, destination)


def simulate(seed: int) -> Outcome:
    return Fleet(seed).run()


__all__ = ["MANIFESTS", "Fleet", "Outcome", "simulate", "timedelta"]
