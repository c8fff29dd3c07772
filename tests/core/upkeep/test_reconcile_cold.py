"""What is in a cold storage class stays archived, and stops neither a reconcile nor an attempt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from archiver.core.attempt.outcomes import AlreadyArchived
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectInfo, ObjectKey
from storage_backends.errors import ObjectCold
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, enter
from tests.core.examples import asset
from tests.core.harness import ArchiverHarness, file
from tests.core.upkeep.reconcile_harness import ReconcileHarness


class Frozen(MemoryBackend):
    """Everything under `cold` is in a class that must be restored before it can be read."""

    cold: tuple[str, ...] = ()

    def _is_cold(self, key: str) -> bool:
        return key.startswith(self.cold) if self.cold else False

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        info = super().stat(key)
        return replace(info, cold=self._is_cold(key)) if info is not None else None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in super().list(prefix):
            yield replace(info, cold=self._is_cold(info.key))

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        if self._is_cold(key):
            raise ObjectCold(f"reading {key!r} in {self.name}: 403 InvalidObjectState; restore it first")
        return super().read(key, start, length_bytes, if_match=if_match)


@pytest.mark.parametrize("cold", [("recordings/",), ("recordings/", "manifests/")])
def test_a_reconcile_leaves_cold_copies_archived(cold: tuple[str, ...]) -> None:
    harness = ReconcileHarness(Frozen("one"), Frozen("two"))
    for number in range(3):
        one = asset(id=f"asset-{number}")
        archive_at(harness.stores, one)
        enter(harness.ledger, one)
    harness.reconciler().reconcile()
    for store in harness.stores:
        store.cold = cold  # type: ignore[attr-defined]

    result = harness.reconciler().reconcile()

    assert result is not None
    assert (result.reopened, result.missing_copies) == (0, 0)
    assert {row.state for row in harness.ledger.rows()} == {AssetState.ARCHIVED}


def test_an_attempt_at_what_is_archived_and_cold_sends_nothing() -> None:
    store = Frozen("one")
    harness = ArchiverHarness(lambda: file(b"movie"), stores=[store])
    harness.archive()
    store.cold = ("recordings/",)
    harness.ledger.reopen(harness.asset_id)
    before = dict(store.store.objects)

    outcome = harness.archive()

    assert isinstance(outcome, AlreadyArchived)
    assert store.store.objects == before
