from __future__ import annotations

import pytest

from archiver.core.destinations.checked import Destinations
from archiver.core.records.keys import MARKER
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter
from tests.core.examples import NOW, asset
from tests.core.fakes import Clock
from worker.doctor.check_result import Verdict
from worker.doctor.identities import check_identity

NAME = "memory://one"


class Setup:
    def __init__(self) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.store = MemoryBackend("one")

    def identities(self) -> Destinations:
        return Destinations(
            ledger=self.ledger, stores=[self.store], workspace="ours", clock=self.clock, machine="host"
        )

    def verdict(self) -> Verdict | None:
        found = check_identity(NAME, self.identities())
        return found.verdict if found else None


def test_doctor_marks_nothing_itself() -> None:
    setup = Setup()

    assert setup.verdict() is Verdict.OK
    assert not setup.store.store.objects


def test_doctor_knows_a_marked_destination() -> None:
    setup = Setup()
    setup.identities().confirm(NAME)

    assert setup.verdict() is Verdict.OK


def test_doctor_says_how_to_adopt_what_the_ledger_does_not_know() -> None:
    setup = Setup()
    setup.identities().confirm(NAME)
    enter(setup.ledger, asset())
    setup.store = MemoryBackend("one")

    found = check_identity(NAME, setup.identities())

    assert found is not None
    assert found.verdict is Verdict.PROBLEM
    assert "archiver adopt 'memory://one'" in found.remedy
    assert not setup.store.store.objects


def test_doctor_warns_of_a_marker_that_something_deletes() -> None:
    setup = Setup()
    enter(setup.ledger, asset())
    archive_at([setup.store], asset())
    setup.identities().confirm(NAME)
    setup.store.delete(MARKER)

    assert setup.verdict() is Verdict.WARNING


def test_what_cannot_be_told_now_is_left_to_the_other_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup()

    def away(_name: str) -> None:
        raise LedgerUnavailable("no answer")

    monkeypatch.setattr(setup.ledger, "recall", away)
    assert setup.verdict() is None

    class Silent(MemoryBackend):
        def read(self, *_: object, **__: object) -> bytes:
            raise TransientStorageError("503")

    setup.store = Silent("one")
    assert setup.verdict() is None
