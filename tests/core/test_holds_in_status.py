from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.destinations import holds
from archiver.core.health import assess
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock

NAME, HALF_HOUR = "s3://bucket", timedelta(minutes=30)


class World:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)

    def meets(self, kind: holds.Kind, *minutes: int) -> None:
        for minute in minutes:
            self.clock.now = NOW + timedelta(minutes=minute)
            holds.note_trouble(self.ledger, NAME, "host-1", kind, "503", self.clock(), HALF_HOUR)

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
        (holds.Kind.SILENT, (0,), []),
        (holds.Kind.SILENT, (0, 1, 4), []),
        (holds.Kind.SILENT, (0, 5), ["destination_silent"]),
        (holds.Kind.SILENT_TO_WRITES, (0, 2, 6), ["destination_silent"]),
        (holds.Kind.UNKNOWN, (0,), ["destination_unknown"]),
    ],
)
def test_when_a_destination_is_a_fault(kind: holds.Kind, minutes: tuple[int, ...], codes: list[str]) -> None:
    world = World()

    world.meets(kind, *minutes)

    assert world.codes() == codes


def test_a_trouble_that_nobody_meets_again_is_forgotten() -> None:
    world = World()
    world.meets(holds.Kind.UNKNOWN, 0)

    world.clock.advance(HALF_HOUR)

    assert world.codes() == []


def test_a_trouble_that_ended_is_none_and_another_machines_stays() -> None:
    world = World()
    world.meets(holds.Kind.UNKNOWN, 0)
    holds.note_trouble(world.ledger, NAME, "host-2", holds.Kind.UNKNOWN, "no marker", NOW, HALF_HOUR)

    holds.end_trouble(world.ledger, NAME, "host-1")

    assert "host-2" in holds.current(world.ledger, NOW)[NAME].reason


def test_what_was_silent_and_is_unknown_now_is_so_since_now() -> None:
    world = World()
    world.meets(holds.Kind.SILENT, 0, 10)

    world.meets(holds.Kind.UNKNOWN, 20)

    trouble = holds.trouble_at(world.ledger, NAME, "host-1")
    assert trouble is not None
    assert trouble.since == NOW + timedelta(minutes=20)


def test_a_ledger_that_was_set_back_does_not_make_a_trouble_older_than_itself() -> None:
    world = World()
    world.meets(holds.Kind.SILENT, 60)

    world.meets(holds.Kind.SILENT, 0)

    assert world.codes() == []


@pytest.mark.parametrize("fact", [{}, {"kind": "unknown"}, {"kind": "of a newer version", "since": "x"}])
def test_a_trouble_of_another_version_is_none(fact: dict[str, object]) -> None:
    world = World()
    world.ledger.remember(f"{holds.TROUBLE_PREFIX}{NAME}#host", fact)

    assert world.codes() == []


def test_a_fault_stops_no_other_machine() -> None:
    world = World()
    world.meets(holds.Kind.SILENT, 0, 10)

    assert holds.among(world.ledger.recall_all(""), world.clock()) == {}
