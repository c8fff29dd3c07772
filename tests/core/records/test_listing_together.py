"""Several assets are removed and looked for together: the same ends as one after the other, with fewer requests."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.core.records import removal
from archiver.core.records.listing_together import BESIDE, FAILURES, Owners, Together
from archiver.core.records.removal import Left, Targets
from storage_backends.base import ObjectInfo, ObjectKey, object_key
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from storage_backends.optional import NotDeleted, ObjectVersion
from tests.core.archived import put

SEGMENTS = st.sampled_from(["a", "b", "ab", "abc", "b-1", "r"])
KEYS = st.lists(st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join), max_size=30, unique=True)


class Counting(MemoryBackend):
    """Deletes as S3 does, and counts requests: a LIST for each 1,000 keys."""

    def __init__(self) -> None:
        super().__init__("one")
        self.asked: Counter[str] = Counter()
        self.listed: list[str] = []

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.listed.append(prefix)
        for number, info in enumerate([*super().list(prefix)]):
            if number % 1000 == 0:
                self.asked["LIST"] += 1
            yield info

    def versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        return (ObjectVersion(info.key, "null", True) for info in self.list(prefix))

    def delete_versions(self, chosen: Sequence[ObjectVersion]) -> Sequence[NotDeleted]:
        self.asked["DELETE"] += 1
        for version in chosen:
            self.delete(version.key)
        return []


def folder(number: int, room: int = 0) -> ObjectKey:
    return object_key(f"recordings/room{room}/session/{number:06}")


def targets_of(number: int, room: int = 0) -> Targets:
    return Targets([folder(number, room)], [object_key(f"manifests/2026/01/01/{number:06}.json")])


def archived(numbers: Sequence[int], rooms: int = 1) -> Counting:
    store = Counting()
    for number in numbers:
        put(store, f"{folder(number, number % rooms)}/movie.mp4", b"x")
        put(store, f"manifests/2026/01/01/{number:06}.json", b"x")
    return store


@settings(max_examples=80, deadline=None)
@given(
    keys=KEYS,
    chosen=st.lists(st.tuples(KEYS.map(lambda all_: all_[:2]), KEYS.map(lambda all_: all_[:2])), max_size=6),
    budget=st.integers(0, 3),
)
def test_what_is_removed_and_found_is_what_lies_below_the_targets(
    keys: list[str], chosen: list[tuple[list[str], list[str]]], budget: int
) -> None:
    store = Counting()
    keys = [f"{root}/{key}" for key in keys for root in ("manifests", "recordings")]
    for key in keys:
        put(store, key, b"x")
    many = [
        Targets(
            [object_key(f"recordings/{each}") for each in folders],
            [object_key(f"manifests/{each}") for each in objects],
        )
        for folders, objects in chosen
    ]

    def is_of(key: str, targets: Targets) -> bool:
        return key in targets.objects or any(key.startswith(f"{each}/") for each in targets.folders)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("archiver.core.records.listing_together.BESIDE", budget)
        together = Together()
        before = removal.all_left(store, many, [Left() for _ in many], together)
        whys = removal.remove_all(store, many, together)
        after = removal.all_left(store, many, whys, together)

    assert [left.visible for left in before] == [sum(is_of(key, each) for key in keys) for each in many]
    assert set(store.store.objects) == {key for key in keys if not any(is_of(key, each) for each in many)}
    assert not any(after)


def test_what_lies_together_costs_a_few_requests() -> None:
    store = archived(range(400))
    many = [targets_of(number) for number in range(100, 200)]
    together = Together()

    whys = removal.remove_all(store, many, together)
    left = removal.all_left(store, many, whys, together)

    assert not any(left)
    assert len(store.store.objects) == 600
    assert store.asked == {"LIST": 2, "DELETE": 2}


def test_what_lies_far_apart_costs_little_more_than_each_alone() -> None:
    numbers = list(range(0, 100_000, 50))
    random.Random(7).shuffle(numbers)
    store = archived(range(0, 100_000, 50), rooms=40)
    together, done = Together(), numbers[:200]
    for start in range(0, len(done), 10):
        many = [targets_of(number, number % 40) for number in done[start : start + 10]]
        removal.remove_all(store, many, together)

    assert len(store.store.objects) == 2 * (2000 - 200)
    alone = 2 * len(done)
    assert alone <= len(store.listed) <= alone + 2 * 4 * FAILURES, "after some in vain no more are tried"


def test_a_common_list_is_given_up_after_a_number_of_keys_of_others() -> None:
    store = archived(range(5000))
    read = 0

    class Read(Counting):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            nonlocal read
            for info in super().list(prefix):
                read += 1
                yield info

    reading = Read()
    reading.store.objects.update(store.store.objects)
    many = [targets_of(0), targets_of(4999)]

    removal.remove_all(reading, many, Together())

    assert len(reading.store.objects) == 2 * 4998
    assert read <= 2 * 4 * (BESIDE * 2 + 3)


def test_what_is_refused_is_told_of_its_asset_alone() -> None:
    class Refuses(MemoryBackend):
        def delete(self, key: ObjectKey) -> None:
            if "000002" in key:
                raise AccessDenied("not this one")
            super().delete(key)

    store = Refuses("one")
    store.store.objects.update(archived(range(4)).store.objects)
    many = [targets_of(number) for number in range(4)]

    whys = removal.remove_all(store, many, Together())
    left = removal.all_left(store, many, whys, Together())

    assert [(each.visible, list(each.notes)) for each in left] == [
        (0, []),
        (0, []),
        (2, ["not this one"]),
        (0, []),
    ]


def test_a_key_in_the_folders_of_two_assets_belongs_to_both() -> None:
    owners = Owners([["recordings/a/"], ["recordings/a/b/"]])
    infos = [ObjectInfo(object_key(f"recordings/a/{name}"), 1) for name in ("b/movie.mp4", "bc/movie.mp4")]

    found = list(owners.wanted(infos, owners.prefixes(), None))

    assert owners.prefixes() == ["recordings/a/"]
    assert [whose for _, whose in found] == [[0, 1], [0]]
