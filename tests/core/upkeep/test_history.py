from __future__ import annotations

from datetime import timedelta

from archiver.core.upkeep.history import history_of
from archiver.ledger.models import Acknowledgement, Decision
from tests.core.examples import NOW, row

LATER = NOW + timedelta(hours=1)
ACCEPTED = {"accepted": {"by": "ann", "why": "it is all", "at": NOW.isoformat(), "doubts": []}}


def test_decisions_come_oldest_first_from_wherever_they_are_kept() -> None:
    known = row(
        history=(Decision("retried", "bob", "again", LATER),),
        acknowledged=Acknowledgement("eve", "seen", LATER + timedelta(hours=1)),
    )

    assert [(each.what, each.by, each.at) for each in history_of(known, [ACCEPTED])] == [
        ("accepted", "ann", NOW),
        ("retried", "bob", LATER),
        ("acknowledged", "eve", LATER + timedelta(hours=1)),
    ]


def test_a_decision_that_is_kept_twice_is_told_once() -> None:
    known = row(
        history=(
            Decision("accepted", "ann", "it is all", NOW),
            Decision("acknowledged", "eve", "seen", NOW),
        ),
        acknowledged=Acknowledgement("eve", "seen", LATER),  # of a ledger that was rebuilt
    )

    assert history_of(known, [ACCEPTED, ACCEPTED]) == list(known.history)


def test_a_manifest_that_nobody_accepted_tells_nothing() -> None:
    assert history_of(row(), [{}, {"accepted": None}, {"accepted": {"at": "garbled"}}]) == []
