"""What has been kept for its term is deleted, quietly, and nothing else is."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from archiver.core.judging import Scope
from archiver.core.records import keys, tombstones
from archiver.core.records.manifest import read_manifest
from archiver.core.upkeep.erasing import Eraser
from archiver.core.upkeep.expiring import FACT, SOON, Expirer, ExpiryResult, findings
from archiver.core.upkeep.reconcile import Reconciler, Unidentified
from archiver.core.upkeep.scrub import Scrubber
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.upkeep.terms import Terms
from archiver.hms.models import Asset
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectKey, object_key
from storage_backends.errors import TransientStorageError
from tests.core.archived import put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.upkeep.reconcile_harness import DatedBackend, ReconcileHarness

DAY = timedelta(days=1)


class Identified(Unidentified):
    def is_identified(self, _name: str, /) -> bool:
        return True


class Harness(ReconcileHarness):
    def __init__(self, terms: Terms, *assets: Asset) -> None:
        super().__init__()
        self.terms = terms
        self.archive(assets)
        self.swept()
        self.reconcile()

    def swept(self, ahead: float | None = 0.0) -> None:
        """`ahead`: seconds by which the ledger's clock was ahead of 100ms's; None: that does not tell the time."""
        at = self.clock().isoformat()
        self.ledger.remember(SWEEP_FACT, {"started_at": at, "ended_at": at, "clock_ahead_seconds": ahead})

    def expirer(self) -> Expirer:
        eraser = Eraser(ledger=self.ledger, destinations=self.stores, clock=self.clock)
        return Expirer(
            ledger=self.ledger, destinations=self.stores, eraser=eraser, terms=self.terms, clock=self.clock
        )

    def reconciler(self) -> Reconciler:
        return Reconciler(
            ledger=self.ledger,
            destinations=self.stores,
            scope=Scope(RETENTION),
            clock=self.clock,
            identities=Identified(),
            expirer=self.expirer(),
        )

    def run(self, *, confirmed: bool = False) -> ExpiryResult:
        result = self.expirer().run(confirmed=confirmed)
        assert result is not None
        return result

    def at(self, moment: datetime) -> Harness:
        """As usual: every clock, and a sweep."""
        self.clock.now = moment
        self.swept()
        return self

    def is_gone(self, one: Asset) -> bool:
        inside = [key for store in self.stores for key in store.store.objects]
        return not [key for key in inside if one.id in key.split("/")]


@pytest.mark.parametrize(("days", "expires"), [(30 * DAY, False), (31 * DAY, True)])
def test_an_asset_expires_when_its_term_since_it_was_archived_is_over(days: timedelta, expires: bool) -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)

    result = harness.at(NOW - timedelta(seconds=1) + days).run()

    assert result == ExpiryResult(expired=int(expires))
    assert harness.is_gone(asset()) is expires
    assert harness.state(asset()) is (AssetState.EXPIRED if expires else AssetState.ARCHIVED)


def test_its_tombstone_says_so_and_keeps_it_away() -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    harness.at(NOW + 31 * DAY).run()

    found = tombstones.read(harness.one, asset().id)
    assert found is not None
    assert (found.state, found.ticket, found.is_done) == (AssetState.EXPIRED, "kept 30 days", True)
    harness.ledger.clear()
    harness.reconcile()
    assert harness.state(asset()) is AssetState.EXPIRED


def test_what_has_no_date_or_is_kept_for_ever_never_expires() -> None:
    undated, summary = asset(id="undated", created_at=None), asset(id="kept", type="summary")
    harness = Harness(Terms(30, {"summary": 0}), undated, summary, asset(id="chat", type="chat"))
    harness.run(confirmed=True)

    harness.at(NOW + 3650 * DAY).run()

    assert harness.state(undated) is AssetState.ARCHIVED
    assert harness.state(summary) is AssetState.ARCHIVED
    assert harness.state(asset(id="chat")) is AssetState.EXPIRED


def test_by_default_nothing_expires() -> None:
    harness = Harness(Terms(), asset())

    assert harness.at(NOW + 3650 * DAY).run(confirmed=True) == ExpiryResult()
    assert harness.state(asset()) is AssetState.ARCHIVED


def test_at_most_a_hundredth_of_the_archive_expires_in_a_day() -> None:
    many = [asset(id=f"asset-{number:03}") for number in range(300)]
    harness = Harness(Terms(30), *many)
    harness.run(confirmed=True)

    first = harness.at(NOW + 40 * DAY).run()
    again = harness.run()
    tomorrow = harness.at(NOW + 41 * DAY).run()

    assert (first.expired, again.expired, tomorrow.expired) == (3, 0, 2)  # of 297, rounded down
    assert first.left == 297


def test_a_shorter_term_deletes_nothing_before_a_person_accepts_it() -> None:
    harness = Harness(Terms(365), asset())
    assert harness.run().withheld == ("all others: 365 days instead of for ever",)
    harness.run(confirmed=True)
    harness.terms = Terms(30)
    harness.at(NOW + 40 * DAY)

    withheld = harness.run()

    assert withheld.withheld == ("all others: 30 days instead of 365 days",)
    assert harness.state(asset()) is AssetState.ARCHIVED
    assert [each.id for each in findings(harness.ledger.recall(FACT))] == ["expiry_unconfirmed"]
    assert harness.run(confirmed=True).expired == 1
    assert list(findings(harness.ledger.recall(FACT))) == []


def test_a_longer_term_needs_nobody_and_a_lost_ledger_accepts_none_by_itself() -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    harness.terms = Terms(365)
    assert harness.at(NOW + 40 * DAY).run() == ExpiryResult()
    harness.terms = Terms(30)
    assert harness.run().withheld
    harness.ledger.clear()

    assert harness.run().held == "the ledger was not compared with the destinations yet"
    harness.reconcile()
    assert harness.run().withheld
    assert harness.state(asset()) is AssetState.ARCHIVED


def test_what_expires_soon_is_told_before() -> None:
    harness = Harness(Terms(30), asset(), asset(id="another"))
    harness.run(confirmed=True)
    assert list(findings(harness.ledger.recall(FACT))) == []

    harness.at(NOW + 30 * DAY - SOON).run()

    (told,) = findings(harness.ledger.recall(FACT))
    assert (told.id, told.is_problem) == ("expiring_soon", False)
    assert "2 assets expire within 7 days" in told.text


def test_what_a_rule_of_the_bucket_deleted_after_its_term_is_expired_and_no_alarm() -> None:
    harness = Harness(Terms(30), asset(), asset(id="another"))
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    for store in harness.stores:
        store.store.objects.clear()

    result = harness.reconcile()

    assert (result.damaged, result.reopened, result.would_change) == (0, 0, 0)
    assert harness.states() == {AssetState.EXPIRED: 2}


@pytest.mark.parametrize("at_one", [True, False], ids=["at one destination", "at both"])
def test_what_a_rule_left_of_an_asset_without_manifests_is_deleted_within_the_share_of_the_day(
    at_one: bool,
) -> None:
    first, second = asset(id="first"), asset(id="second")
    harness = Harness(Terms(30), first, second)
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    for store in harness.stores:
        store.store.objects.clear()
    for store in harness.stores[: 1 if at_one else 2]:
        for one in (first, second):
            put(store, f"{keys.asset_folder(one)}/movie.mp4", b"media")

    harness.reconcile()
    after_the_reconcile = harness.states()
    today = harness.run().expired
    harness.reconcile()
    tomorrow = harness.at(NOW + 41 * DAY).run().expired

    assert after_the_reconcile == {AssetState.ARCHIVED: 2}, "it deletes nothing beside the share"
    assert (today, tomorrow) == (1, 1)
    assert harness.is_gone(first)
    assert harness.is_gone(second)


def test_what_a_rule_left_is_told_from_what_it_deleted() -> None:
    gone, left = asset(id="gone"), asset(id="left")
    harness = Harness(Terms(30), gone, left)
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    for store in harness.stores:
        store.store.objects.clear()
    put(harness.two, f"{keys.asset_folder(left)}/movie.mp4", b"media")

    harness.reconcile()

    assert (harness.state(gone), harness.state(left)) == (AssetState.EXPIRED, AssetState.ARCHIVED)
    assert harness.run().expired == 1


def test_a_destination_that_cannot_be_listed_expires_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    for store in harness.stores:
        store.store.objects.clear()
    listed = harness.two.list

    def refuse(prefix: str = "") -> Any:
        if prefix.startswith("recordings/"):
            raise TransientStorageError("503")
        return listed(prefix)

    monkeypatch.setattr(harness.two, "list", refuse)

    harness.reconcile()

    assert harness.state(asset()) is AssetState.ARCHIVED


def test_what_a_rule_deleted_at_one_destination_alone_waits_for_its_day() -> None:
    harness = Harness(Terms(30), asset())
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    harness.one.store.objects.clear()

    result = harness.reconcile()

    assert (result.damaged, result.missing_copies) == (0, 0)
    assert harness.state(asset()) is AssetState.ARCHIVED
    assert harness.run().expired == 1
    assert harness.is_gone(asset())


def test_what_is_deleted_within_its_term_is_damage() -> None:
    harness = Harness(Terms(365), asset())
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    harness.one.store.objects.clear()

    result = harness.reconcile()

    assert result.damaged == 1
    assert harness.state(asset()) is AssetState.DAMAGED


def test_a_term_that_nobody_accepted_excuses_no_damage() -> None:
    harness = Harness(Terms(30), asset())
    harness.at(NOW + 40 * DAY)
    harness.one.store.objects.clear()

    assert harness.reconcile().damaged == 1


@pytest.mark.parametrize(("days", "state"), [(30, AssetState.ARCHIVED), (365, AssetState.DAMAGED)])
def test_the_scrub_calls_missing_objects_damage_only_within_the_term(days: int, state: AssetState) -> None:
    harness = Harness(Terms(days), asset())
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    harness.one.delete(object_key(f"recordings/{asset().id}/movie.mp4"))
    scrubber = Scrubber(
        ledger=harness.ledger,
        destinations=harness.stores,
        clock=harness.clock,
        pause=lambda _: None,
        term_is_over=harness.expirer().term_is_over,
    )

    scrubber.scrub()

    assert harness.state(asset()) is state


@pytest.mark.parametrize(
    "later",
    [
        {"archived_at": NOW + 20 * DAY},
        {"accepted": {"by": "ann", "at": (NOW + 20 * DAY).isoformat(), "why": "seen", "doubts": ["no moov"]}},
    ],
    ids=["archived", "accepted"],
)
def test_a_manifest_that_says_it_was_archived_later_is_believed(later: dict[str, Any]) -> None:
    harness = Harness(Terms(30), asset())
    key = keys.manifest_key(asset().id, asset().created_at)
    manifest = read_manifest(harness.two, key)
    assert manifest is not None
    put(harness.two, key, manifest.model_copy(update=later).to_bytes())
    harness.run(confirmed=True)

    assert harness.at(NOW + 40 * DAY).run() == ExpiryResult()
    assert harness.at(NOW + 51 * DAY).run().expired == 1


def test_two_runs_at_once_do_not_exceed_the_share() -> None:
    harness = Harness(Terms(30), asset())
    token = harness.ledger.lock("expire", timedelta(minutes=1))
    assert token is not None

    assert harness.expirer().run() is None


def test_a_killed_run_does_not_begin_the_share_of_its_day_anew() -> None:
    class Killed(BaseException):
        pass

    class Dies(DatedBackend):
        dies = False

        def delete(self, key: ObjectKey) -> None:
            if self.dies and not key.startswith(keys.DOCTOR):
                raise Killed
            super().delete(key)

    harness = Harness(Terms(30))
    harness.stores = [Dies("one", harness.clock)]
    many = [asset(id=f"asset-{number:03}") for number in range(200)]
    harness.archive(many)
    harness.run(confirmed=True)
    harness.at(NOW + 40 * DAY)
    harness.stores[0].dies = True  # type: ignore[attr-defined]
    with pytest.raises(Killed):
        harness.run()
    harness.stores[0].dies = False  # type: ignore[attr-defined]

    result = harness.expirer().run()

    assert result is None or result.expired == 0
    assert harness.reconcile().erased == 2
    assert harness.states()[AssetState.EXPIRED] == 2
