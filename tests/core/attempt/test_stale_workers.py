"""Several workers copy the same asset, paused anywhere and resumed in any order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from archiver.core.records import keys
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_contents
from archiver.ledger.models import OPEN_STATES, AssetState
from storage_backends.base import StorageBackend
from storage_backends.filesystem import FilesystemBackend
from storage_backends.memory import MemoryBackend
from tests.core.attempt.stale_workers import Audit, Pauser, Unconditional, Worker, never
from tests.core.harness import ArchiverHarness, BytesSource, Tree
from tests.transfer.stores import NoChecksumStore

VIDEO = bytes(range(256))


def version(number: int) -> Callable[[], Tree]:
    """Contents whose bytes, but not their sizes, depend on `number`."""

    def contents() -> Tree:
        body = VIDEO[number:] + VIDEO[:number]
        tag = f'"v{number}"'
        names = ["a.ts", "b.ts", "c.ts", "d.ts"]
        files = {name: BytesSource(body[:50], etag=tag) for name in names}
        return Tree(
            {**files, "e.mp4": BytesSource(body, etag=tag), "m.m3u8": b"#EXTM3U"}, version=f"v{number}"
        )

    return contents


@dataclass(frozen=True)
class Plan:
    """`pauses`: of each worker, at which call of which name, and whether after it. `contents`: the version that each is
    given. `steps`: start (0) the next worker, or resume (1 + number) one."""

    pauses: list[tuple[tuple[str, int], bool]]
    contents: list[int]
    steps: list[int]


CALLS = {
    "put manifests": 2,
    "put recordings": 5,
    "complete": 1,
    "put_part": 4,
    "list": 3,
    "stat manifests": 2,
    "read manifests": 2,
    "renew": 1,
    "settle": 1,
    "add_stored": 1,
}
"""How many of each there are in an attempt, about."""


@st.composite
def plans(draw: st.DrawFn, *, versions: int) -> Plan:
    count = draw(st.integers(2, 3))
    points = [(name, number) for name, most in CALLS.items() for number in range(1, most + 1)]
    pauses = [draw(st.tuples(st.sampled_from(points), st.booleans())) for _ in range(count)]
    contents = [draw(st.integers(0, versions - 1)) for _ in range(count)]
    steps: list[int] = []
    for number in range(count):
        steps.append(0)
        resumed = [n for n in range(number + 1) if 1 + n not in steps]
        steps += [1 + n for n in draw(st.lists(st.sampled_from(resumed), unique=True, max_size=3))]
    left = [1 + n for n in range(count) if 1 + n not in steps]
    return Plan(pauses, contents, [*steps, *draw(st.permutations(left))])


@contextmanager
def stores_of(kind: str) -> Iterator[list[StorageBackend]]:
    if kind == "directory":
        with tempfile.TemporaryDirectory() as folder:
            yield [FilesystemBackend(Path(folder) / "archive")]
    elif kind == "two":
        yield [MemoryBackend("one"), MemoryBackend("two")]
    elif kind == "no checksums":
        yield [NoChecksumStore(MemoryBackend("one"))]
    elif kind == "unconditional":
        yield [Unconditional(MemoryBackend("one"))]
    else:
        yield [MemoryBackend("one")]


def manifest_at(harness: ArchiverHarness, store: StorageBackend) -> Manifest | None:
    described = harness.api.assets[0]
    return read_manifest(store, keys.manifest_key(described.id, described.created_at))


def play(
    harness: ArchiverHarness, audits: list[Audit], plan: Plan, after_each: Callable[[], None]
) -> list[Worker]:
    """Every worker starts when the lease of the one before has ended."""
    workers: list[Worker] = []
    for step in plan.steps:
        if step == 0:
            number = len(workers)
            (name, at), after = plan.pauses[number]
            worker = Worker(
                harness,
                audits,
                f"worker {number}",
                version(plan.contents[number]),
                Pauser(name, at, after=after),
            )
            workers.append(worker)
            worker.start()
        else:
            workers[step - 1].finish()
        harness.clock.advance(timedelta(minutes=5))
        after_each()
    return workers


def bring_to_an_end(harness: ArchiverHarness, audits: list[Audit], number: int) -> None:
    """What beat and healthy workers do."""
    for _ in range(10):
        row = harness.ledger.get(harness.asset_id)
        if row is not None and row.state not in OPEN_STATES:
            return
        harness.clock.advance(timedelta(hours=2))
        healthy = Worker(harness, audits, "healthy", version(number), never())
        healthy.start()
        healthy.finish()


def check_end(harness: ArchiverHarness, audits: list[Audit], *, swaps: bool) -> None:
    row = harness.ledger.get(harness.asset_id)
    assert row
    assert row.state is AssetState.ARCHIVED, row
    for store, seen in zip(harness.stores, audits, strict=True):
        assert seen.wrong == []
        manifest = manifest_at(harness, store)
        assert manifest
        assert manifest.trusted
        assert not manifest.damage
        assert verify_contents(store, manifest).ok
        if swaps:
            assert manifest.rank == max(seen.committed), "of the highest token that committed"


KINDS = ["one", "two", "directory", "no checksums", "unconditional"]
SETTINGS = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


@pytest.mark.parametrize("kind", KINDS)
@SETTINGS
@given(plan=plans(versions=1))
def test_workers_with_the_same_bytes_never_commit_a_false_manifest(kind: str, plan: Plan) -> None:
    with stores_of(kind) as stores:
        harness = ArchiverHarness(version(0), stores=stores)
        audits = [Audit() for _ in stores]

        def proves_only_whole_objects() -> None:
            row = harness.ledger.get(harness.asset_id)
            for store in stores:
                manifest = manifest_at(harness, store)
                assert manifest is None or verify_contents(store, manifest).ok
                assert manifest is not None or row is None or row.state is not AssetState.ARCHIVED

        workers = play(harness, audits, plan, proves_only_whole_objects)
        event(f"paused at {sorted(str(worker.pauser.frozen_at) for worker in workers)}")
        bring_to_an_end(harness, audits, 0)

        swaps = all(store.limits.conditional_replace for store in stores)
        check_end(harness, audits, swaps=swaps)


@pytest.mark.parametrize("kind", KINDS)
@SETTINGS
@given(plan=plans(versions=3))
def test_workers_with_different_bytes_end_with_a_true_manifest(kind: str, plan: Plan) -> None:
    with stores_of(kind) as stores:
        harness = ArchiverHarness(version(0), stores=stores)
        audits = [Audit() for _ in stores]

        play(harness, audits, plan, lambda: None)
        bring_to_an_end(harness, audits, 2)

        swaps = all(store.limits.conditional_replace for store in stores)
        check_end(harness, audits, swaps=swaps)


def test_the_plans_reach_every_call_that_is_named_in_them() -> None:
    for name in CALLS:
        pauser = Pauser(name, 1, after=False)
        worker = Worker(ArchiverHarness(version(0)), [Audit()], "one", version(0), pauser)
        worker.start()
        worker.finish()
        assert pauser.frozen_at == name
