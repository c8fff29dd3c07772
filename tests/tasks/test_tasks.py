"""The Celery tasks: their frozen names, and that each calls the core."""

from __future__ import annotations

import pickle
import pkgutil
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import Celery

import tasks
from archiver.core.attempt.outcomes import AlreadyArchived, Archived, Ended, Kept, NotOurs, Outcome, WillRetry
from archiver.core.errors import LedgerOfAnotherWorkspace
from archiver.core.health import Summary
from archiver.core.health_rules import Finding, finding
from archiver.core.machine import MOST_FAULTS, MachineFaults, failing_machines
from archiver.core.upkeep.drill_report import DrillReport
from archiver.core.upkeep.expiring import ExpiryResult
from archiver.core.upkeep.reconcile import ReconcileResult
from archiver.core.upkeep.scrub import ScrubResult
from archiver.core.upkeep.sweep import SweepResult
from archiver.hms.errors import HmsUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Counts
from storage_backends.errors import TransientStorageError
from tasks import archive_asset, dispatch, drill, names, reconcile, scrub, sweep, watch
from tasks.archive_asset import REASON_LENGTH, NotArchived
from tasks.services import Services
from tasks.soft_task import OutOfMemory, SoftTask
from tasks.throttle import EVERY_HEADER, SKIPPED, comes_too_soon
from tasks.watch import BEAT_HEADER, beats
from tests.core.examples import NOW
from tests.core.fakes import Clock
from worker.bootstrap import build_app
from worker.celery_setup.schedule import beat_schedule
from worker.settings import Settings

TASKS = (archive_asset, dispatch, drill, reconcile, scrub, sweep, watch)


@dataclass
class Switch:
    said: list[tuple[Any, ...]]

    def start(self) -> None:
        self.said.append(("switch", "start"))

    def success(self) -> None:
        self.said.append(("switch", "success"))

    def fail(self) -> None:
        self.said.append(("switch", "fail"))


class Expiry:
    def run(self) -> ExpiryResult:
        return ExpiryResult(expired=3)


class Replication:
    def replicate_due(self) -> None:
        """Another process is replicating."""


@dataclass
class Core:
    """Every service in one, saying what is asked of it."""

    outcome: Outcome = field(default_factory=lambda: NotOurs("another worker has it"))
    swept: Any = None
    reconciled: ReconcileResult | None = None
    scrubbed: ScrubResult | None = None
    drilled: DrillReport | None = None
    idle_since: datetime | None = None
    reported: tuple[Finding, ...] = ()
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    foreign: LedgerOfAnotherWorkspace | None = None

    def __post_init__(self) -> None:
        self.archiver = self.sweeper = self.dispatcher = self.reconciler = self.scrubber = self.watcher = self
        self.driller = self.stater = self.cataloguer = self
        self.missed_webhooks = self.write_probe = self.session_keeper = self
        self.expirer = Expiry()
        self.replicator = Replication()
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.dead_mans_switch = Switch(self.asked)

    def require_own_ledger(self) -> None:
        if self.foreign is not None:
            raise self.foreign

    def measure_clocks(self) -> None:
        self.asked.append(("measure_clocks",))

    def archive(self, asset_id: str, holder: str) -> Outcome:
        self.asked.append(("archive", asset_id))
        return self.outcome

    def sweep(self) -> Any:
        self.asked.append(("sweep",))
        return self.swept

    def keep(self) -> int:
        self.asked.append(("keep",))
        return 0

    keep_at_once = keep

    def look(self) -> int:
        self.asked.append(("look",))
        return 0

    def check_destinations(self) -> None:
        self.asked.append(("check_destinations",))

    def run(self) -> None:
        self.asked.append(("try to write",))

    def dispatch(self) -> int:
        self.asked.append(("dispatch",))
        return 7

    def reconcile(self) -> ReconcileResult | None:
        self.asked.append(("reconcile",))
        return self.reconciled

    def scrub(self) -> ScrubResult | None:
        self.asked.append(("scrub",))
        return self.scrubbed

    def state_due(self) -> int:
        return 2

    def write_due(self) -> int:
        return 3

    def drill_if_due(self) -> DrillReport | None:
        self.asked.append(("drill",))
        return self.drilled

    def watch(self) -> Summary:
        return self.summary()

    def summary(self) -> Summary:
        return Summary(
            at=NOW,
            counts=Counts(2, {AssetState.ARCHIVED: 2}),
            at_risk_within=timedelta(days=3),
            sweep_every=timedelta(minutes=5),
            last_sweep={"started_at": NOW.isoformat()},
            idle_since=self.idle_since,
            reported=self.reported,
        )


def app_with(core: Core) -> Celery:
    app = Celery("test", set_as_current=False)
    app.conf.task_always_eager = True
    services: Any = core
    for task in TASKS:
        task.register(app, lambda: services)
    return app


def call(core: Core, name: str, headers: dict[str, object] | None = None, **arguments: str) -> Any:
    sent: Any = headers
    return app_with(core).tasks[name].apply(kwargs=arguments, headers=sent).get()


def test_the_names_of_tasks_are_frozen() -> None:
    """A message of an old release must find its task in a new one. Add names; never change one."""
    named = {name: value for name, value in vars(names).items() if name.isupper()}

    assert named == {
        "ARCHIVE_ASSET": "archiver.archive_asset",
        "SWEEP": "archiver.sweep",
        "DISPATCH": "archiver.dispatch",
        "WATCH": "archiver.watch",
        "RECONCILE": "archiver.reconcile",
        "SCRUB": "archiver.scrub",
        "DRILL": "archiver.drill",
    }


def test_every_task_is_registered_under_its_name_in_the_products_app() -> None:
    app = build_app(Settings(_env_file=None, redis_url="redis://127.0.0.1:1/0"))

    ours = {name for name in app.tasks if not name.startswith("celery.")}

    assert ours == {value for name, value in vars(names).items() if name.isupper()}
    modules = {module.name for module in pkgutil.iter_modules(tasks.__path__)} - {
        "names",
        "throttle",
        "services",
        "soft_task",
    }
    assert modules == {task.__name__.removeprefix("tasks.") for task in TASKS}, "each file here is a task"


def test_beat_sends_every_task_but_the_one_that_dispatch_sends() -> None:
    sent: dict[str, Any] = beat_schedule(
        sweep_every=timedelta(minutes=5), dispatch_every=timedelta(seconds=15)
    )

    assert {entry["task"] for entry in sent.values()} == {
        value for name, value in vars(names).items() if name.isupper()
    } - {names.ARCHIVE_ASSET}


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        (
            Archived(1000, 3, 1.23456, ("no thumbnail",)),
            {
                "state": "archived",
                "bytes": 1000,
                "objects": 3,
                "seconds": 1.235,
                "warnings": ["no thumbnail"],
            },
        ),
        (AlreadyArchived(1000, 3), {"state": "archived", "bytes": 1000, "objects": 3, "seconds": 0.0}),
        (
            Ended(AssetState.EXTERNAL, "in your own bucket"),
            {"state": "external", "bytes": 0, "objects": 0, "seconds": 0.0, "reason": "in your own bucket"},
        ),
        (NotOurs("another worker has it"), {"state": "not_ours", "reason": "another worker has it"}),
    ],
    ids=["archived", "already archived", "external", "not ours"],
)
def test_flower_is_shown_what_became_of_an_asset_that_is_safe_or_is_another_workers(
    outcome: Outcome, shown: dict[str, Any]
) -> None:
    core = Core(outcome=outcome)

    result = call(core, names.ARCHIVE_ASSET, asset_id="6400c0d3", asset_type="room-vod")

    assert result == shown
    assert core.asked == [("archive", "6400c0d3")]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (WillRetry("answered 503", timedelta(0)), "waiting: answered 503"),
        (Ended(AssetState.LOST, "gone"), "lost: gone"),
        (Ended(AssetState.SOURCE_FAILED, "100ms says so"), "source_failed: 100ms says so"),
        (Kept("no moov", 1000, 3), "quarantined: no moov"),
        (Ended(AssetState.DAMAGED, "x" * 5000), "damaged: " + "x" * (REASON_LENGTH - 3) + "..."),
    ],
    ids=["will retry", "lost", "failed at the source", "with doubts", "a long reason"],
)
def test_an_asset_that_is_not_archived_is_a_failure_with_its_state_and_reason(
    outcome: Outcome, said: str
) -> None:
    core = Core(outcome=outcome)
    task = app_with(core).tasks[names.ARCHIVE_ASSET]

    ended = task.apply(kwargs={"asset_id": "6400c0d3", "asset_type": "chat"})

    assert ended.state == "FAILURE", "never RETRY: the ledger retries"
    assert isinstance(ended.result, task.throws)
    assert str(ended.result) == said
    assert str(pickle.loads(pickle.dumps(ended.result))) == said, "it crosses from the child to the worker"
    assert core.asked == [("archive", "6400c0d3")]


def test_what_runs_every_few_seconds_sends_no_events_and_everything_else_does() -> None:
    app = app_with(Core())

    assert {name for name, task in app.tasks.items() if not task.send_events} == {names.DISPATCH, names.WATCH}


def test_a_message_of_a_release_that_sent_no_type_is_understood() -> None:
    core = Core()

    call(core, names.ARCHIVE_ASSET, asset_id="6400c0d3")

    assert core.asked == [("archive", "6400c0d3")]


def test_a_sweep_is_followed_by_a_dispatch_also_when_another_one_is_at_it() -> None:
    core = Core(swept=None)

    result = call(core, names.SWEEP)

    assert result == {"skipped": "another sweep is already running"}
    steps = ["sweep", "dispatch", "check_destinations", "keep"]
    assert core.asked == [("switch", "start"), *((step,) for step in steps)]


def test_the_destinations_are_looked_at_also_when_the_api_does_not_answer() -> None:
    core = Core()

    def away() -> None:
        raise HmsUnavailable("no answer")

    core.sweep = away  # type: ignore[method-assign]

    with pytest.raises(HmsUnavailable):
        call(core, names.SWEEP)
    assert core.asked == [("switch", "start"), ("switch", "fail"), ("check_destinations",)]


@pytest.mark.parametrize(("idle_since", "said"), [(None, "success"), (NOW - timedelta(hours=1), "fail")])
def test_the_dead_mans_switch_is_told_whether_a_sweep_ended_well_and_something_copies(
    idle_since: datetime | None, said: str
) -> None:
    core = Core(
        swept=SweepResult(1, 1, 0, 0, full=True, newest_first=None, seconds=0.1), idle_since=idle_since
    )

    call(core, names.SWEEP)

    assert core.asked[-1] == ("switch", said)


def test_the_dead_mans_switch_is_told_that_nobody_looks_for_alerts() -> None:
    core = Core(
        swept=SweepResult(1, 1, 0, 0, full=True, newest_first=None, seconds=0.1),
        reported=(finding("alerts_are_silent", "serve is dead"),),
    )

    call(core, names.SWEEP)

    assert core.asked[-1] == ("switch", "fail")


def test_dispatch_tells_how_many_it_sent() -> None:
    assert call(Core(), names.DISPATCH) == {"sent": 7}


def test_reconcile_scrub_and_drill_tell_what_they_found_or_that_another_is_at_it() -> None:
    core = Core(reconciled=ReconcileResult(5, 1, 0, 0, 0), scrubbed=ScrubResult(2, 1000, 0, 0))

    reconciled = call(core, names.RECONCILE)
    assert (reconciled["entered"], reconciled["expired"]) == (1, 3)
    assert core.asked[0] == ("look",), "webhooks that nobody took"
    assert call(core, names.SCRUB)["read_bytes"] == 1000
    assert "skipped" in call(Core(), names.RECONCILE)
    assert "skipped" in call(Core(), names.SCRUB)
    assert call(Core(drilled=DrillReport(copies=3)), names.DRILL)["copies"] == 3
    assert "skipped" in call(Core(), names.DRILL)
    done = call(Core(), names.DRILL)
    assert (done["statements"], done["catalogues"]) == (2, 3), "also when no drill is due"


@pytest.mark.parametrize("name", [names.RECONCILE, names.SCRUB, names.DRILL])
def test_nothing_compares_or_repairs_on_a_ledger_of_another_workspace(name: str) -> None:
    core = Core(foreign=LedgerOfAnotherWorkspace("another workspace"))

    with pytest.raises(LedgerOfAnotherWorkspace):
        call(core, name)
    assert core.asked == []


def test_watch_notes_which_beat_sent_it_for_as_long_as_it_goes_on() -> None:
    core = Core()

    result = call(core, names.WATCH, headers={BEAT_HEADER: "host:42"})
    call(core, names.WATCH)

    assert result == {"healthy": True, "states": {"archived": 2}, "at_risk": 0}
    assert beats(core.ledger) == ["host:42"]
    core.clock.advance(timedelta(minutes=4))
    assert beats(core.ledger) == []


@pytest.mark.parametrize("name", [names.SWEEP, names.DISPATCH, names.WATCH, names.RECONCILE, names.SCRUB])
def test_of_many_messages_that_piled_up_one_is_run(name: str) -> None:
    core = Core(reconciled=ReconcileResult(5, 1, 0, 0, 0), scrubbed=ScrubResult(2, 1000, 0, 0))
    by_beat: dict[str, object] = {EVERY_HEADER: 60.0}

    results = [call(core, name, headers=by_beat) for _ in range(20)]
    core.clock.advance(timedelta(seconds=59))
    results.append(call(core, name, headers=by_beat))

    assert [number for number, result in enumerate(results) if result != SKIPPED] == [0, 20]


@pytest.mark.parametrize(
    "headers", [None, {}, {EVERY_HEADER: "often"}, {EVERY_HEADER: 0}, {EVERY_HEADER: -5}]
)
def test_what_beat_did_not_send_is_always_run(headers: dict[str, object] | None) -> None:
    core = Core()

    assert [call(core, names.DISPATCH, headers=headers) for _ in range(3)] == [{"sent": 7}] * 3


def test_a_task_that_comes_back_because_its_worker_died_is_run() -> None:
    core = Core()
    task = app_with(core).tasks[names.DISPATCH]

    def send(redelivered: bool) -> bool:
        task.push_request(headers={EVERY_HEADER: 60.0}, delivery_info={"redelivered": redelivered})
        try:
            return not comes_too_soon(task, core.ledger)
        finally:
            task.pop_request()

    assert [send(False), send(False), send(True)] == [True, False, True]


def test_the_beats_are_counted_also_when_there_are_two() -> None:
    core = Core()

    for beat in ("host:1", "host:2"):
        call(core, names.WATCH, headers={BEAT_HEADER: beat, EVERY_HEADER: 60.0})

    assert beats(core.ledger) == ["host:1", "host:2"]


def test_an_unexpected_error_is_left_to_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core()

    def fail() -> None:
        raise TransientStorageError("list: 503")

    monkeypatch.setattr(core, "reconcile", fail)

    with pytest.raises(TransientStorageError):
        call(core, names.RECONCILE)


def test_services_are_asked_for_when_a_task_runs_and_not_before() -> None:
    app = Celery("test", set_as_current=False)

    def build() -> Services:
        raise AssertionError("built before the fork")

    for task in TASKS:
        task.register(app, build)

    assert names.ARCHIVE_ASSET in app.tasks


class Failing(Core):
    """Its archiver raises what is `errors`' next, or ends as `outcome` says."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(outcome=AlreadyArchived(1, 1))
        self.errors = list(errors)

    def archive(self, asset_id: str, holder: str) -> Outcome:
        self.asked.append(("archive", asset_id))
        if self.errors:
            raise self.errors.pop(0)
        return self.outcome


def on_a_machine(core: Core, slept: list[float]) -> Celery:
    app: Celery[Any] = Celery("test", set_as_current=False, task_cls=SoftTask)
    app.conf.task_always_eager = True
    services: Any = core
    archive_asset.register(app, lambda: services, MachineFaults(slept.append))
    return app


def archive_on(app: Celery) -> Any:
    return app.tasks[names.ARCHIVE_ASSET].apply(kwargs={"asset_id": "a"}).get()


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't start new thread"), OSError(24, "x")], ids=repr
)
def test_a_sick_machine_pauses_and_says_so_until_it_is_well(error: Exception) -> None:
    slept, core = list[float](), Failing(error, error)
    app = on_a_machine(core, slept)

    for _ in range(2):
        with pytest.raises(NotArchived, match="not_tried: "):
            archive_on(app)
    assert len(slept) == 2
    assert len(failing_machines(core.ledger)) == 1

    assert archive_on(app)["state"] == "archived"
    assert len(slept) == 2
    assert failing_machines(core.ledger) == {}


def test_a_machine_that_stays_sick_ends_the_process_and_does_not_go_through_the_queue() -> None:
    core = Core(outcome=WillRetry("no memory", timedelta(0), costs_attempt=False, machine_fault=True))
    app = on_a_machine(core, [])

    for _ in range(MOST_FAULTS - 1):
        with pytest.raises(NotArchived, match="waiting: no memory"):
            archive_on(app)
    with pytest.raises(SystemExit, match="no memory"):
        archive_on(app)

    assert len(core.asked) == MOST_FAULTS


def test_out_of_memory_leaves_a_task_as_an_error_that_does_not_end_the_worker() -> None:
    """Celery raises a task's MemoryError in the main process."""
    app: Celery[Any] = Celery("test", set_as_current=False, task_cls=SoftTask)
    app.conf.task_always_eager = True
    core: Any = Core()

    def run_out() -> None:
        raise MemoryError

    core.reconcile = run_out
    for task in TASKS:
        task.register(app, lambda: core)

    failed = app.tasks[names.RECONCILE].apply()

    assert isinstance(failed.result, OutOfMemory)


def test_every_task_of_the_product_fails_alone() -> None:
    app = build_app(Settings(_env_file=None, redis_url="redis://127.0.0.1:1/0"))

    assert all(
        isinstance(task, SoftTask) for name, task in app.tasks.items() if not name.startswith("celery.")
    )
