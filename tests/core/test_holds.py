from __future__ import annotations

from datetime import timedelta

from archiver.core.destinations import holds
from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock

FIVE_MINUTES = timedelta(minutes=5)


def test_a_hold_is_in_force_until_its_time_and_names_its_reason() -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    holds.put(ledger, "s3://bucket", "403 AccessDenied", NOW, FIVE_MINUTES)

    assert holds.current(ledger, NOW) == {"s3://bucket": holds.Hold("403 AccessDenied", NOW + FIVE_MINUTES)}
    clock.advance(FIVE_MINUTES)
    assert holds.current(ledger, clock()) == {}


def test_the_last_hold_of_a_name_counts() -> None:
    ledger = MemoryLedger(Clock(NOW))
    holds.put(ledger, "s3://bucket", "first", NOW, FIVE_MINUTES)
    holds.put(ledger, "s3://bucket", "second", NOW, 2 * FIVE_MINUTES)

    (hold,) = holds.current(ledger, NOW).values()

    assert hold == holds.Hold("second", NOW + 2 * FIVE_MINUTES)


def test_a_hold_that_is_lifted_is_gone_and_others_stay() -> None:
    ledger = MemoryLedger(Clock(NOW))
    for name in ("s3://bucket", holds.API):
        holds.put(ledger, name, "refused", NOW, FIVE_MINUTES)

    holds.lift(ledger, "s3://bucket")
    holds.lift(ledger, "never held")

    assert set(holds.current(ledger, NOW)) == {holds.API}


def test_a_hold_written_by_another_version_is_none() -> None:
    ledger = MemoryLedger(Clock(NOW))
    ledger.remember("hold:s3://bucket", {"until": "soon"})

    assert holds.current(ledger, NOW) == {}
