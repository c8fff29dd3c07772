"""A process that is killed while it makes an asset due again leaves nothing archived that lacks a copy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from archiver.core.records import keys
from archiver.core.records.commit import mark_damaged
from archiver.core.upkeep.scrub_copy import CopyChecker
from archiver.core.upkeep.scrub_plan import ScrubRules
from archiver.ledger.models import AssetState
from tests.core.archived import flip_a_bit
from tests.core.examples import asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness

KEY = keys.manifest_key(asset().id, asset().created_at)


class Killed(BaseException):
    """Not even `except Exception` runs."""


def _lose_a_manifest(harness: ReconcileHarness) -> None:
    harness.two.delete(KEY)
    harness.reconcile()


def _mark_a_copy(harness: ReconcileHarness) -> None:
    mark_damaged(harness.two, KEY, ["movie.mp4: it differs"])
    harness.reconcile()


def _scrub_damage(harness: ReconcileHarness) -> None:
    flip_a_bit(harness.two, KEY)
    CopyChecker(harness.ledger, harness.stores, harness.clock, ScrubRules()).mark(
        harness.two, KEY, in_full=True
    )


@pytest.mark.parametrize("before", ["reopen", "note_copies"])
@pytest.mark.parametrize("find", [_lose_a_manifest, _mark_a_copy, _scrub_damage])
def test_what_a_killed_process_found_makes_its_asset_due(
    find: Callable[[ReconcileHarness], None], before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = ReconcileHarness()
    harness.archive([asset()])
    harness.note_whole(asset())
    harness.clock.advance(timedelta(hours=1))

    def killed(*_args: object, **_options: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(harness.ledger, before, killed)
        with pytest.raises(Killed):
            find(harness)
    harness.clock.advance(timedelta(hours=1))
    harness.reconcile()

    assert harness.state(asset()) is AssetState.DISCOVERED
