"""The contract of a destination's options: classes, tags, metadata and locks, for stores that have them.

As `storage_contract.py`: subclass it, give it a class-scoped fixture `optioned`, and name in `cannot` what this test
server does not do, with the reason; those tests must then fail.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest

from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend, object_key
from storage_backends.conditional import replace_if
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import ObjectChanged, ObjectCold
from storage_backends.optional import locks_of
from storage_backends.registry import open_destination

LABELS = {"room": "r/1", "session": "s 1", "type": "room-composite"}


@dataclass(frozen=True)
class Seen:
    """An object as the store's own client sees it."""

    storage_class: str
    metadata: Mapping[str, str]
    tags: Mapping[str, str] | None = None  # None: the store has none
    locked_until: datetime | None = None


@dataclass(frozen=True)
class Optioned:
    """`url`: with a class `warm`, with tags or metadata `room;team=video` by `labels_option`, and with a lock of 30
    days where the store has locks. `cold_url`: with a class that is cold."""

    url: str
    cold_url: str
    warm: str
    standard: str
    see: Callable[[str], Seen]
    labels_option: str
    reads_cold: bool  # it may be read, for a fee
    part_bytes: int
    env: Mapping[str, str] = field(default_factory=dict)


class OptionsContract:
    cannot: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _cannot_here(self, request: pytest.FixtureRequest) -> None:
        name = request.node.name
        reason = self.cannot.get(name) or self.cannot.get(name.partition("[")[0])
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def environment(cls, optioned: Optioned) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in optioned.env.items():
                patch.setenv(name, value)
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, optioned: Optioned, environment: None) -> Iterator[StorageBackend]:
        with contextlib.closing(open_destination(optioned.url)) as store:
            yield store

    @pytest.fixture(scope="class")
    @classmethod
    def cold(cls, optioned: Optioned, environment: None) -> Iterator[StorageBackend]:
        with contextlib.closing(open_destination(optioned.cold_url)) as store:
            yield store

    @pytest.fixture
    def key(self) -> ObjectKey:
        return object_key(f"recordings/{uuid.uuid4().hex}/movie.mp4")

    @pytest.mark.parametrize("way", ["put", "upload"])
    def test_media_has_the_class_and_the_labels_of_the_settings(
        self, way: str, store: StorageBackend, optioned: Optioned, key: ObjectKey
    ) -> None:
        write(store, key, optioned.part_bytes, upload=way == "upload")

        seen, stat = optioned.see(key), store.stat(key)

        assert seen.storage_class == optioned.warm
        assert stat is not None
        assert (stat.storage_class, stat.cold) == (optioned.warm, False)
        labels = seen.tags if optioned.labels_option == "tags" else seen.metadata
        assert labels is not None
        assert {name: labels.get(name) for name in ("room", "team")} == {"room": "r/1", "team": "video"}
        assert "session" not in labels

    def test_a_record_stays_in_the_standard_class(
        self, store: StorageBackend, optioned: Optioned, key: ObjectKey
    ) -> None:
        store.put(ObjectSpec(key, "application/json"), b"{}", crc32c_of(b"{}"))

        assert optioned.see(key).storage_class == optioned.standard

    def test_a_record_is_replaced_on_a_condition_as_without_options(
        self, store: StorageBackend, key: ObjectKey
    ) -> None:
        spec = ObjectSpec(key, "application/json", 2)
        first = replace_if(store, spec, b"{}", crc32c_of(b"{}"), None)
        replace_if(store, spec, b"[]", crc32c_of(b"[]"), first)
        with pytest.raises(ObjectChanged):
            replace_if(store, spec, b"()", crc32c_of(b"()"), first)

        assert store.read(key) == b"[]"

    def test_cold_media_is_described_as_such_by_stat_and_list(
        self, cold: StorageBackend, optioned: Optioned, key: ObjectKey
    ) -> None:
        write(cold, key, optioned.part_bytes)

        stat = cold.stat(key)
        listed = list(cold.list(key))

        assert stat is not None
        assert stat.cold
        assert [(info.storage_class, info.cold) for info in listed] == [(stat.storage_class, True)]

    def test_a_read_of_cold_media_works_or_says_what_to_do(
        self, cold: StorageBackend, optioned: Optioned, key: ObjectKey
    ) -> None:
        write(cold, key, optioned.part_bytes)

        if optioned.reads_cold:
            assert cold.read(key, 0, 5) == b"mmmmm"
        else:
            with pytest.raises(ObjectCold, match=f"{key}.*restore it first"):
                cold.read(key, 0, 5)

    def test_a_lock_lasts_for_the_days_of_the_setting_from_when_it_is_asked_for(
        self, store: StorageBackend, optioned: Optioned, key: ObjectKey
    ) -> None:
        write(store, key, optioned.part_bytes)
        before = optioned.see(key).locked_until
        locks = locks_of(store)
        assert locks is not None
        until = locks.lock([key])
        locks.lock([key])

        after = optioned.see(key).locked_until
        assert before is None
        assert after is not None
        assert until is not None
        assert after >= until > datetime.now(UTC) + timedelta(days=29)

    def test_a_record_may_be_locked_as_it_is_stored(
        self, store: StorageBackend, optioned: Optioned, key: ObjectKey
    ) -> None:
        store.put(ObjectSpec(key, "application/json", lock=True), b"{}", crc32c_of(b"{}"))

        assert optioned.see(key).locked_until is not None


def write(store: StorageBackend, key: ObjectKey, part_bytes: int, *, upload: bool = False) -> None:
    data = b"m" * part_bytes
    spec = ObjectSpec(key, "video/mp4", len(data), len(data), media=True, labels=LABELS)
    if upload:
        begun = store.begin(spec)
        begun.complete([begun.put_part(1, data, crc32c_of(data))], crc32c_of(data))
    else:
        store.put(spec, data, crc32c_of(data))
