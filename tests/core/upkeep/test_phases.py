"""Long work tells whoever watches how far it is."""

from __future__ import annotations

from archiver.core.upkeep.scrub import Scrubber
from tests.core.archived import FILES
from tests.core.examples import asset
from tests.core.upkeep.reconcile_harness import ReconcileHarness

Told = tuple[str, int, int | None, int]


class Listener:
    def __init__(self) -> None:
        self.told: list[Told] = []

    def __call__(
        self, phase: str, done: int = 0, total: int | None = None, /, *, size_bytes: int = 0
    ) -> None:
        self.told.append((phase, done, total, size_bytes))


def test_a_scrub_tells_each_copy_of_each_destination() -> None:
    harness, listener = ReconcileHarness(), Listener()
    harness.archive([asset(id="a"), asset(id="b")])
    size = sum(map(len, FILES.values()))

    Scrubber(ledger=harness.ledger, destinations=harness.stores, clock=harness.clock).scrub(listener)

    assert listener.told == [
        told
        for name in ("one", "two")
        for told in (
            (f"listing memory://{name}", 0, None, 0),
            (f"reading back memory://{name}", 0, 2, 0),
            (f"reading back memory://{name}", 1, 2, size),
        )
    ]


def test_a_reconcile_tells_its_phases_in_order() -> None:
    harness, listener = ReconcileHarness(), Listener()
    harness.archive([asset(id="a"), asset(id="b")])

    harness.reconciler().reconcile(on_progress=listener)

    assert [phase for phase, *_ in listener.told] == [
        "listing memory://one",
        "listing memory://two",
        "reading manifests",
        "comparing with the ledger",
        "repairing",
    ]
