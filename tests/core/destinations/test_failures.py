from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.destinations import breaker, failures
from archiver.core.health import assess
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock

NAME, HALF_HOUR = "s3://bucket", timedelta(minutes=30)


class Harness:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)

    def fails(self, kind: failures.Kind, *minutes: int) -> None:
        for minute in minutes:
            self.clock.now = NOW + timedelta(minutes=minute)
            failures.record(self.ledger, NAME, "host-1", kind, "503", self.clock(), HALF_HOUR)

    def codes(self) -> list[str]:
        self.ledger.remember("sweep", {"started_at": self.clock().isoformat()})
        watcher = Watcher(
            ledger=self.ledger,
            clock=self.clock,
            at_risk_within=timedelta(days=3),
            sweep_every=timedelta(minutes=5),
        )
        return [problem.id for problem in assess(watcher.summary()).problems]


@pytest.mark.parametrize(
    ("kind", "minutes", "codes"),
    [
        (failures.Kind.SILENT, (0,), []),
        (failures.Kind.SILENT, (0, 1, 4), []),
        (failures.Kind.SILENT, (0, 5), ["destination_silent"]),
        (failures.Kind.SILENT_TO_WRITES, (0, 2, 6), ["destination_silent"]),
        (failures.Kind.UNKNOWN, (0,), ["destination_unknown"]),
    ],
)
def test_when_a_destination_is_a_fault(
    kind: failures.Kind, minutes: tuple[int, ...], codes: list[str]
) -> None:
    harness = Harness()

    harness.fails(kind, *minutes)

    assert harness.codes() == codes


def test_a_failure_that_is_not_recorded_again_is_forgotten() -> None:
    harness = Harness()
    harness.fails(failures.Kind.UNKNOWN, 0)

    harness.clock.advance(HALF_HOUR)

    assert harness.codes() == []


def test_clearing_a_failure_leaves_that_of_another_machine() -> None:
    harness = Harness()
    harness.fails(failures.Kind.UNKNOWN, 0)
    failures.record(harness.ledger, NAME, "host-2", failures.Kind.UNKNOWN, "no marker", NOW, HALF_HOUR)

    failures.clear(harness.ledger, NAME, "host-1")

    assert "host-2" in breaker.opened(harness.ledger, NOW)[NAME].reason


def test_a_silent_destination_that_becomes_unknown_is_so_from_now_on() -> None:
    harness = Harness()
    harness.fails(failures.Kind.SILENT, 0, 10)

    harness.fails(failures.Kind.UNKNOWN, 20)

    failure = failures.failure_on(harness.ledger, NAME, "host-1")
    assert failure is not None
    assert failure.since == NOW + timedelta(minutes=20)


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        (("unknown", "silent"), "destination_unknown"),
        (("refuses", "silent"), "destination_refuses"),
        (("unknown", "silent", "silent"), "destination_unknown"),
        (("silent", "unknown", "silent"), "destination_unknown"),
        (("unknown", "silent", "refuses"), "destination_refuses"),
        (("refuses", "silent", "unknown"), "destination_unknown"),
    ],
)
def test_silence_does_not_hide_what_was_found_before(kinds: tuple[str, ...], code: str) -> None:
    harness = Harness()

    for minute, kind in enumerate(kinds):
        harness.fails(failures.Kind(kind), minute)

    assert harness.codes() == [code]


def test_a_destination_that_can_be_read_again_is_not_unknown_any_more() -> None:
    harness = Harness()
    harness.fails(failures.Kind.UNKNOWN, 0)
    harness.fails(failures.Kind.SILENT, 1)
    on_host = failures.MachineFailures(harness.ledger, "host-1", HALF_HOUR)

    on_host.record_readable(NAME, None, "", harness.clock())

    assert harness.codes() == []


def test_a_ledger_that_was_set_back_does_not_make_a_failure_older_than_itself() -> None:
    harness = Harness()
    harness.fails(failures.Kind.SILENT, 60)

    harness.fails(failures.Kind.SILENT, 0)

    assert harness.codes() == []


@pytest.mark.parametrize("fact", [{}, {"kind": "unknown"}, {"kind": "of a newer version", "since": "x"}])
def test_the_record_of_another_version_is_ignored(fact: dict[str, object]) -> None:
    harness = Harness()
    harness.ledger.remember(f"{failures.PREFIX}{NAME}#host", fact)

    assert harness.codes() == []


def test_a_fault_stops_no_other_machine() -> None:
    harness = Harness()
    harness.fails(failures.Kind.SILENT, 0, 10)

    assert breaker.parse(harness.ledger.recall_all(""), harness.clock()) == {}
