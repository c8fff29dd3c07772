"""Each command that a person runs on an archive, killed at any call or run by two at once, ends as one that was not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from archiver.core.errors import FolderBusy
from archiver.core.judging import Scope, as_known
from archiver.core.records import end_records, keys
from archiver.core.records.check_records import read_records
from archiver.core.records.commit import mark_damaged
from archiver.core.records.drill_records import read_drills
from archiver.core.replication.repairer import Repairer
from archiver.core.replication.replicator import Replicator
from archiver.core.replication.selection import Wanted
from archiver.core.restore.decoding import Played
from archiver.core.restore.drill import Driller, DrillRules
from archiver.core.restore.folder import RestoreFolder
from archiver.core.restore.reading import BlockReader
from archiver.core.restore.restorer import Restorer
from archiver.core.upkeep import clock_evidence
from archiver.core.upkeep.copies import Selection, find
from archiver.core.upkeep.erasing import Eraser
from archiver.core.upkeep.expiring import Expirer
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.reports import RECONCILE_FACT
from archiver.core.upkeep.scrub import Scrubber
from archiver.core.upkeep.scrub_copy import CopyChecker
from archiver.core.upkeep.scrub_plan import ScrubRules
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.upkeep.terms import Terms
from archiver.ledger.models import AssetState
from tests.core.archived import archive_at, enter, flip_a_bit
from tests.core.examples import NOW, RETENTION, asset
from tests.core.mortal import Interrupted, KilledHere, Life, Mortal
from tests.core.replication.harness import DAMAGED, LACKING, WHOLE, ReplicationHarness, Store
from worker.verify import verify as verify_all

KEPT, FLIPPED, LACKED, ENDED = (asset(id=f"asset-{name}") for name in ("kept", "flipped", "lacked", "ended"))
STORED = (KEPT, FLIPPED, LACKED)
DAY = timedelta(days=1)
_MEMORY = (
    "/dev/shm" if Path("/dev/shm").is_dir() else None
)  # a busy disk takes seconds to flush so many files


class World:
    """Two destinations and their ledger, after all sources have ended: one asset is whole at both, one is damaged at
    the first, one is at the first alone, and one was lost."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._replication = ReplicationHarness()
        self.clock, self.ledger = self._replication.clock, self._replication.ledger
        self.stores: Sequence[Store] = self._replication.stores
        for store in self.stores:
            store.store.clock = self.clock
        for each in STORED:
            enter(self.ledger, each)
            archive_at(self.stores[: 1 if each is LACKED else 2], each)
        enter(self.ledger, ENDED, AssetState.LOST, "gone")
        ended = self.ledger.get(ENDED.id)
        assert ended is not None
        end_records.write(self.stores, as_known(ended), AssetState.LOST, "gone", NOW)
        flip_a_bit(self.stores[0], keys.manifest_key(FLIPPED.id, FLIPPED.created_at))
        self.clock.now = NOW + 2 * RETENTION
        self.swept()

    def swept(self) -> None:
        """As beat does all the time: without a sweep nobody knows whether the clock is right."""
        at = self.clock().isoformat()
        self.ledger.remember(SWEEP_FACT, {"started_at": at, "ended_at": at, "clock_ahead_seconds": 0.0})

    def note_copies(self) -> None:
        for each, copies in ((KEPT, [WHOLE, WHOLE]), (FLIPPED, [DAMAGED, WHOLE]), (LACKED, [WHOLE, LACKING])):
            row = self.ledger.get(each.id)
            assert row is not None
            names = [store.name for store in self.stores]
            self.ledger.note_copies(row, dict(zip(names, copies, strict=True)))
        mark_damaged(self.stores[0], keys.manifest_key(FLIPPED.id, FLIPPED.created_at), ["movie.mp4: CRC32C"])

    def end(self) -> dict[str, Any]:
        """What outlives the process, without the times at which it was written, and without uploads that a killed one
        began and did not note: the scrub aborts them after a week."""
        found: dict[str, Any] = {}
        for store in self.stores:
            for key, stored in store.store.objects.items():
                if not key.startswith((keys.CHECKS, keys.DRILLS, keys.EXPIRY)):
                    found[f"{store.name}/{key}"] = (
                        _timeless(stored.data) if key.endswith(".json") else stored.data
                    )
            checks = read_records(store, self.clock()).checks
            found[f"{store.name} checks"] = {key: check.marks for key, check in checks.items()}
            drills = read_drills(store, self.clock()).drilled
            found[f"{store.name} drills"] = {key: drilled.result for key, drilled in drills.items()}
        for row in self.ledger.rows(tuple(AssetState)):
            found[row.asset_id] = (row.state, row.reason, dict(row.copies), row.leased_until)
        assert self.ledger.counts().balanced
        for path in self.folder.rglob("*"):
            if path.is_file():
                found[str(path.relative_to(self.folder))] = path.read_bytes()
        return found

    def eraser(self, ledger: Any, stores: Any) -> Eraser:
        return Eraser(ledger=ledger, destinations=stores, clock=self.clock)

    def expirer(self, ledger: Any, stores: Any) -> Expirer:
        return Expirer(
            ledger=ledger,
            destinations=stores,
            eraser=self.eraser(ledger, stores),
            terms=Terms(30),
            clock=self.clock,
        )

    def reconciler(self, ledger: Any, stores: Any) -> Reconciler:
        return Reconciler(ledger=ledger, destinations=stores, scope=Scope(RETENTION), clock=self.clock)


_OF_THE_RUN = ("at", "fence", "day", "archive", "begun")


def _timeless(data: bytes) -> Any:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(each) for k, each in value.items() if k not in _OF_THE_RUN and k[-3:] != "_at"}
        return [without(each) for each in value] if isinstance(value, list) else value

    return without(json.loads(data))


# -- the commands ---------------------------------------------------------------------------------------------
def rebuild(world: World, ledger: Any, stores: Any) -> None:
    world.reconciler(ledger, stores).reconcile()


def erase(world: World, ledger: Any, stores: Any) -> None:
    list(world.eraser(ledger, stores).erase([KEPT.id, LACKED.id], ticket="GDPR-7", by="ann@desk"))


def expire(world: World, ledger: Any, stores: Any) -> None:
    at = world.clock().isoformat()  # as usual: a sweep and a reconcile have just ended
    world.ledger.remember(SWEEP_FACT, {"ended_at": at, "clock_ahead_seconds": 0.0})
    world.ledger.remember(RECONCILE_FACT, {"at": at})
    world.expirer(ledger, stores).run(confirmed=True)


def scrub(world: World, ledger: Any, stores: Any) -> None:
    Scrubber(ledger=ledger, destinations=stores, clock=world.clock).scrub()


def verify(world: World, ledger: Any, stores: Any) -> None:
    checker = CopyChecker(ledger, stores, world.clock, ScrubRules())
    by_name = {store.name: store for store in stores}
    for checked in verify_all(stores, [], quick=False):
        if checked.problems and checked.key is not None:
            checker.mark(by_name[checked.destination], checked.key, in_full=True)


def replicate(world: World, ledger: Any, stores: Any) -> None:
    harness = world._replication  # of this file
    repairer = Repairer(
        ledger=ledger,
        destinations=stores,
        engine=harness.engine,
        lease=timedelta(minutes=2),
        lease_renew=timedelta(minutes=1),
        clock=world.clock,
    )
    Replicator(
        ledger=ledger, destinations=stores, repairer=repairer, clock=world.clock, concurrency=1
    ).replicate(Wanted())


def restore(world: World, ledger: Any, stores: Any) -> None:  # it needs no ledger
    with RestoreFolder(world.folder) as folder, BlockReader(1, 64) as reader:
        for copies in find(stores, Selection()):
            assert Restorer(folder, reader).restore(copies).ok


def drill(world: World, ledger: Any, stores: Any) -> None:
    rules = DrillRules(scratch=world.folder / "scratch")
    Driller(
        ledger=ledger,
        destinations=stores,
        clock=world.clock,
        rules=rules,
        decode=lambda _path: (Played.YES, ""),
    ).drill(2)


@dataclass(frozen=True)
class Verb:
    """`before`: brings the world to where the command is of use. `runs`: how often it is run, with `pause` between:
    longer than the locks and leases that a killed one leaves. `concludes`: by the reconcile. `leads_to`: the
    state of two assets in the end."""

    run: Callable[[World, Any, Any], None]
    before: Callable[[World], object] = lambda _world: None
    runs: int = 2
    pause: timedelta = timedelta(hours=1)
    concludes: bool = False
    leads_to: AssetState | None = None

    def complete(self, world: World) -> dict[str, Any]:
        """Run it again until it has nothing to do, and return the end."""
        for _ in range(self.runs):
            world.clock.advance(self.pause)
            world.swept()
            self.run(world, world.ledger, world.stores)
            if self.concludes:
                world.reconciler(world.ledger, world.stores).reconcile()
        return world.end()


def reconciled(world: World) -> None:
    """Nothing expires before the ledger was compared with the destinations."""
    world.reconciler(world.ledger, world.stores).reconcile()


VERBS = {
    "rebuild": Verb(rebuild, lambda world: world.ledger.clear()),
    "erase": Verb(erase, concludes=True, leads_to=AssetState.ERASED),
    # each day one asset may: a killed run has used the share of its day
    "expire": Verb(expire, reconciled, runs=5, pause=DAY, concludes=True, leads_to=AssetState.EXPIRED),
    "scrub": Verb(scrub),
    "verify": Verb(verify),
    "replicate": Verb(replicate, lambda world: world.note_copies()),
    "restore": Verb(restore),
    "drill": Verb(drill),
}


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stores in memory have the machine's; nothing expires where clocks differ."""
    monkeypatch.setattr(clock_evidence, "tell_time", lambda *_: None)


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> Verb:
    return VERBS[request.param]


def made(verb: Verb, sparse: int) -> Iterator[tuple[int, World]]:
    """Yield a world for each call to try: every one at first, then fewer, the sooner the less `sparse`."""
    step = 1
    while True:
        with TemporaryDirectory(dir=_MEMORY) as folder:
            world = World(Path(folder))
            verb.before(world)
            yield step, world
        step += 1 + step // sparse


@cache
def uninterrupted(run: Callable[..., None]) -> dict[str, Any]:
    verb = next(each for each in VERBS.values() if each.run is run)
    _, world = next(made(verb, 1))
    before = world.end()
    verb.run(world, world.ledger, world.stores)
    end = verb.complete(world)
    assert end != before, "it does something"
    assert verb.leads_to is None or world.ledger.counts().states[verb.leads_to] == 2
    return end


def test_killed_before_any_call_and_run_again_the_end_is_the_same(verb: Verb) -> None:
    """Killed after a call is killed before the next one."""
    expected = uninterrupted(verb.run)
    for step, world in made(verb, 12):
        life = Life(step, after=False)
        try:
            verb.run(world, Mortal(world.ledger, life), [Mortal(store, life) for store in world.stores])
            killed = False
        except KilledHere:
            killed = True

        assert verb.complete(world) == expected, step
        if not killed:
            break
    assert step > 10


def test_two_at_once_end_as_one(verb: Verb) -> None:
    """The second runs from its begin to its end before one call of the first."""
    expected = uninterrupted(verb.run)
    for step, world in made(verb, 4):
        second_ran: list[bool] = []

        def another(world: World = world, ran: list[bool] = second_ran) -> None:
            ran.append(True)
            try:
                verb.run(world, world.ledger, world.stores)
            except FolderBusy:
                assert verb.run is restore

        life = Interrupted(step, another)
        verb.run(world, Mortal(world.ledger, life), [Mortal(store, life) for store in world.stores])

        assert verb.complete(world) == expected, step
        if not second_ran:
            break
    assert step > 10
