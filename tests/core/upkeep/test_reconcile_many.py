"""Many gaps at once: a mass deletion, a wrong bucket, a destination that was added or changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from archiver.core.destinations.checked import Destinations
from archiver.core.destinations.guarded import guarded
from archiver.core.errors import NotTheDestination
from archiver.core.judging import Scope
from archiver.core.records.keys import MARKER, manifest_key
from archiver.core.upkeep import reconcile
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.reports import RECONCILE_FACT
from archiver.hms.models import Asset
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectInfo, ObjectKey
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.archived import enter
from tests.core.examples import NOW, RETENTION, asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness

MANY = 30  # more than 20, and than 2 %


class Unreadable(MemoryBackend):
    """Its marker may not be read."""

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        if key == MARKER:
            raise AccessDenied("403")
        return super().read(key, start, length_bytes, if_match=if_match)


class Harness(ReconcileHarness):
    """With the checks of the destinations, as a worker has them."""

    def destinations(self, stores: Sequence[MemoryBackend] | None = None) -> Destinations:
        return Destinations(
            ledger=self.ledger,
            stores=self.stores if stores is None else stores,
            workspace="ours",
            clock=self.clock,
            machine="host",
            pause=lambda _seconds: None,
        )

    def reconciler(self) -> Reconciler:
        identities = self.destinations()
        return Reconciler(
            ledger=self.ledger,
            destinations=guarded(self.stores, identities),
            scope=Scope(RETENTION),
            clock=self.clock,
            identities=identities,
        )

    @property
    def fact(self) -> dict[str, object]:
        return dict(self.ledger.recall(RECONCILE_FACT) or {})


def recordings(number: int, days_ago: float = 1.0, name: str = "asset") -> list[Asset]:
    made = NOW - timedelta(days=days_ago)
    return [asset(id=f"{name}-{each:04d}", created_at=made.isoformat()) for each in range(number)]


def delete_all(store: MemoryBackend, names: str = "") -> None:
    for key in [key for key in store.store.objects if names in key and key != MARKER]:
        del store.store.objects[key]


def test_a_mass_deletion_in_the_right_bucket_is_copied_again_while_100ms_has_it() -> None:
    harness = Harness()
    harness.archive(recordings(MANY))
    harness.reconcile()

    delete_all(harness.two)
    result = harness.reconcile()

    assert (result.reopened, result.stopped) == (MANY, False)
    assert harness.states() == {AssetState.DISCOVERED: MANY}


def test_assets_that_a_mass_deletion_removed_everywhere_are_left_to_a_person() -> None:
    harness = Harness()
    harness.archive(recordings(MANY, days_ago=20, name="old"))
    harness.archive(recordings(MANY, days_ago=1, name="new"))
    harness.reconcile()

    delete_all(harness.one)
    delete_all(harness.two)
    result = harness.reconcile()

    assert (result.reopened, result.would_change, result.stopped) == (MANY, MANY, True)
    assert harness.states() == {AssetState.ARCHIVED: MANY, AssetState.DISCOVERED: MANY}
    assert (harness.fact["stopped"], harness.fact["would_change"]) == (True, MANY)

    result = harness.reconcile(confirmed=True)

    assert (result.reopened, result.stopped) == (MANY, False)
    assert harness.fact["stopped"] is False


def test_copies_that_a_mass_deletion_removed_from_one_destination_are_left_to_a_person() -> None:
    harness = Harness()
    harness.archive(recordings(MANY, days_ago=20))
    harness.reconcile()
    delete_all(harness.two)

    result = harness.reconcile()
    assert (result.missing_copies, result.would_change) == (MANY, MANY)
    assert result.would_change_at == (harness.two.name,)
    assert harness.states() == {AssetState.ARCHIVED: MANY}

    harness.reconcile(confirmed=True)
    assert harness.states() == {AssetState.DAMAGED: MANY}


def test_no_archived_assets_are_reopened_in_masses_where_no_marker_identifies_the_bucket() -> None:
    harness = Harness(MemoryBackend("one"), Unreadable("two"))
    harness.archive(recordings(MANY))
    harness.reconcile()
    delete_all(harness.two)

    result = harness.reconcile()

    assert (result.reopened, result.would_change, result.stopped) == (0, MANY, True)
    assert harness.states() == {AssetState.ARCHIVED: MANY}
    assert harness.reconcile(confirmed=True).reopened == MANY


def test_a_few_gaps_are_repaired_without_confirmation() -> None:
    harness = Harness(MemoryBackend("one"), Unreadable("two"))
    harness.archive(recordings(MANY))
    harness.reconcile()
    delete_all(harness.two, "asset-000")

    result = harness.reconcile()

    assert (result.reopened, result.stopped) == (10, False)


def test_nothing_is_concluded_from_a_wrong_bucket() -> None:
    harness = Harness()
    harness.archive(recordings(MANY, days_ago=20))
    harness.archive(recordings(3, name="new"))
    harness.reconcile()
    right = harness.two
    harness.stores[1] = MemoryBackend("two")

    with pytest.raises(NotTheDestination):
        harness.reconcile()
    assert harness.states() == {AssetState.ARCHIVED: MANY + 3}
    assert harness.two.store.objects == {}

    harness.stores[1] = right
    assert harness.reconcile().reopened == 0


def test_a_bucket_that_changes_while_it_is_listed_concludes_nothing() -> None:
    """The disk is unmounted in the middle."""
    harness = Harness()
    harness.archive(recordings(3))
    harness.reconcile()

    class Vanishing(MemoryBackend):
        def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            self.store.objects.clear()
            harness.clock.advance(timedelta(seconds=5))
            return super().list(prefix)

    harness.stores[1] = Vanishing("two", store=harness.two.store)

    with pytest.raises(NotTheDestination):
        harness.reconcile()
    assert harness.states() == {AssetState.ARCHIVED: 3}


def test_a_destination_that_was_added_is_filled_in_batches_the_most_urgent_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconcile, "FILLED_AT_ONCE", 10)
    one, two = MemoryBackend("one"), MemoryBackend("two")
    harness = Harness(one)
    harness.archive(recordings(15, days_ago=1, name="calm"))
    harness.archive(recordings(5, days_ago=13, name="urgent"))
    harness.archive(recordings(MANY, days_ago=20, name="old"))
    harness.reconcile()
    harness.stores = [one, two]

    first = harness.reconcile()
    due = {row.asset_id for row in harness.ledger.rows([AssetState.DISCOVERED])}
    again = harness.reconcile()

    assert (first.reopened, first.missing_copies, first.stopped) == (10, MANY, False)
    assert {each.id for each in recordings(5, name="urgent")} <= due
    assert again.reopened == 10
    assert harness.destinations().filling() == []
    assert harness.states() == {AssetState.DISCOVERED: 20, AssetState.ARCHIVED: MANY}, (
        "the old ones are archived"
    )


def test_each_sweep_fills_an_added_destination_further_and_compares_nothing_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconcile, "FILLED_AT_ONCE", 10)
    one, two = MemoryBackend("one"), MemoryBackend("two")
    harness = Harness(one)
    harness.archive(recordings(15))
    harness.reconcile()
    harness.stores = [one, two]
    due = []
    for _ in range(3):
        harness.reconciler().check_destinations()
        due.append(harness.states().get(AssetState.DISCOVERED, 0))
    before = harness.fact

    harness.clock.advance(timedelta(minutes=5))
    harness.reconciler().check_destinations()

    assert due == [10, 15, 15]
    assert harness.fact == before


def test_a_ledger_that_was_never_compared_is_compared_at_the_next_sweep() -> None:
    """It was lost, and could not be rebuilt at once."""
    harness = Harness()
    harness.archive(recordings(2))
    harness.reconcile()
    harness.ledger.clear()
    enter(harness.ledger, recordings(1)[0], AssetState.DISCOVERED)

    harness.reconciler().check_destinations()

    assert harness.states() == {AssetState.ARCHIVED: 2}


@pytest.mark.parametrize(
    ("after", "noticed"),
    [(timedelta(hours=5), False), (timedelta(hours=7), True), (timedelta(days=-2), True)],
)
def test_a_sweep_compares_when_no_reconcile_has_ended_for_hours(after: timedelta, noticed: bool) -> None:
    """Each hourly one failed or was killed, or the last is dated in the future."""
    harness = Harness()
    first, second = recordings(2)
    harness.archive([first, second])
    harness.reconcile()
    harness.two.store.objects.pop(manifest_key(first.id, first.created_at))

    harness.clock.advance(after)
    harness.reconciler().check_destinations()

    assert harness.state(first) is (AssetState.DISCOVERED if noticed else AssetState.ARCHIVED)
    assert harness.state(second) is AssetState.ARCHIVED


def test_a_sweep_does_not_compare_a_wrong_destination() -> None:
    harness = Harness()
    harness.archive(recordings(2))
    harness.reconcile()
    harness.ledger.forget(RECONCILE_FACT)
    harness.stores[1] = MemoryBackend("two")

    harness.reconciler().check_destinations()

    assert harness.fact == {}


def test_assets_older_than_an_added_destination_cost_no_request_each() -> None:
    asked: list[str] = []

    class Counting(MemoryBackend):
        def stat(self, key: ObjectKey) -> ObjectInfo | None:
            asked.append(key)
            return super().stat(key)

    one, two = MemoryBackend("one"), Counting("two")
    harness = Harness(one)
    harness.archive(recordings(MANY, days_ago=20))
    harness.reconcile()
    harness.stores = [one, two]
    harness.clock.advance(timedelta(hours=1))
    harness.reconcile()
    asked.clear()

    assert harness.reconcile().missing_copies == MANY
    assert asked == []


def test_assets_to_be_copied_to_an_added_destination_are_not_at_risk() -> None:
    one, two = MemoryBackend("one"), MemoryBackend("two")
    harness = Harness(one)
    harness.archive(recordings(1, days_ago=14))
    harness.reconcile()
    harness.stores = [one, two]

    harness.reconcile()

    (row,) = harness.ledger.rows([AssetState.DISCOVERED])
    assert row.stored_objects == 2


def test_a_copy_deleted_from_a_filled_destination_is_a_gap_like_any_other() -> None:
    one, two = MemoryBackend("one"), MemoryBackend("two")
    harness = Harness(one)
    harness.archive(recordings(1, days_ago=20, name="old"))
    harness.reconcile()
    harness.stores = [one, two]
    harness.reconcile()
    harness.archive(recordings(1, days_ago=1, name="new"))
    delete_all(two)

    harness.clock.advance(timedelta(days=30))
    harness.reconcile()

    states = {row.asset_id: row.state for row in harness.ledger.rows()}
    assert states == {"old-0000": AssetState.ARCHIVED, "new-0000": AssetState.DAMAGED}


def test_assets_older_than_an_added_destination_stay_archived_when_the_ledger_is_lost() -> None:
    one, two = MemoryBackend("one"), MemoryBackend("two")
    harness = Harness(one)
    harness.archive(recordings(MANY, days_ago=20))
    harness.reconcile()
    harness.stores = [one, two]
    before = harness.reconcile()
    harness.ledger.clear()

    after = harness.reconcile()
    again = harness.reconcile()

    assert before.missing_copies == after.missing_copies == again.missing_copies == MANY
    assert harness.states() == {AssetState.ARCHIVED: MANY}


def test_a_destination_that_replaced_another_is_filled_and_nothing_is_called_lost() -> None:
    harness = Harness(MemoryBackend("one"))
    harness.archive(recordings(MANY, days_ago=20, name="old"))
    harness.archive(recordings(MANY, days_ago=1, name="new"))
    harness.reconcile()
    harness.stores = [MemoryBackend("elsewhere")]

    result = harness.reconcile()

    assert (result.reopened, result.missing_copies, result.stopped) == (MANY, MANY, False)
    assert harness.states() == {AssetState.ARCHIVED: MANY, AssetState.DISCOVERED: MANY}


def test_an_adopted_destination_is_filled_and_what_100ms_has_deleted_is_only_counted() -> None:
    harness = Harness()
    harness.archive(recordings(MANY, days_ago=20, name="old"))
    harness.archive(recordings(MANY, days_ago=1, name="new"))
    harness.reconcile()
    harness.stores[1] = MemoryBackend("two")

    harness.destinations().adopt("memory://two")
    result = harness.reconcile()

    assert (result.reopened, result.missing_copies, result.stopped) == (MANY, MANY, False)
