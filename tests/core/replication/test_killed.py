"""A replication that is killed at any step, and run again, ends as one that was not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.replication.repairer import Result
from archiver.ledger.models import AssetState
from tests.core.replication.harness import LACKING, WHOLE, ReplicationHarness


class Killed(BaseException):
    """The process is gone: nothing is cleaned up."""


STEPS = 8
"""More than the writes of one copy."""


@pytest.mark.parametrize("state", [AssetState.ARCHIVED, AssetState.DAMAGED])
@pytest.mark.parametrize("after", [False, True], ids=["before a write", "after a write"])
def test_killed_at_each_write(state: AssetState, after: bool) -> None:
    killed = 0
    for step in range(STEPS):
        harness = ReplicationHarness()
        made = harness.archive(state=state)
        two = harness.stores[1]
        left = iter(range(step + 1))

        def kill(_key: str, left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise Killed

        two.on_write, two.on_stat = (lambda _key: None, kill) if after else (kill, lambda _key: None)
        try:
            harness.repair(made)
        except Killed:
            killed += 1
            assert harness.row(made).state is state, "it is as it was"
            assert harness.copies(made) == [WHOLE, LACKING]
            assert harness.ledger.lease(made.id, "w", timedelta(minutes=1)) is None
        two.on_write = two.on_stat = lambda _key: None
        harness.clock.advance(timedelta(minutes=3))

        again = harness.repair(made)

        assert again.result in (Result.COPIED, Result.NOTHING_TO_DO)
        assert harness.is_whole(two, made)
        assert harness.copies(made) == [WHOLE, WHOLE]
        assert harness.row(made).state is AssetState.ARCHIVED
    assert killed >= 3


def test_what_was_copied_before_is_not_copied_again() -> None:
    harness = ReplicationHarness()
    made = harness.archive(files={f"{n:03}.ts": b"x" * (10 + n) for n in range(60)})
    one, two = harness.stores
    writes = iter(range(50))

    def kill(_key: str) -> None:
        if next(writes, None) is None:
            raise Killed

    two.on_write = kill
    with pytest.raises(Killed):
        harness.repair(made)
    two.on_write = lambda _key: None
    harness.clock.advance(timedelta(minutes=3))
    one.reads.clear()

    assert harness.repair(made).result is Result.COPIED
    assert len([key for key in one.reads if key.endswith(".ts")]) <= 40
    assert harness.copies(made) == [WHOLE, WHOLE]


def test_a_run_that_is_stopped_gives_the_asset_back_at_once() -> None:
    harness = ReplicationHarness()
    made = harness.archive()
    stops = iter([False, False, True])

    stopped = harness.repair(made, stop_requested=lambda: next(stops, True))

    assert stopped.result is Result.STOPPED
    assert harness.row(made).leased_until is None
    assert harness.repair(made).result is Result.COPIED
