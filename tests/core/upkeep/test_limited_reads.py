"""Upkeep reads at a limited rate; everything else about the store is as it is."""

from __future__ import annotations

import pytest

from archiver.core.upkeep.limited_reads import limited
from archiver.limits.rate_limit import RateLimit
from storage_backends.base import ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.memory import MemoryBackend

KEY = object_key("one")
CONTENT = bytes(10_000)


class Time:
    def __init__(self) -> None:
        self.seconds = self.earned_at = 0.0

    def reserve(self, _name: str, amount: float, per_second: float) -> float:
        self.earned_at = max(self.earned_at, self.seconds) + amount / per_second
        return self.earned_at - self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def store() -> MemoryBackend:
    store = MemoryBackend("memory://one")
    store.put(ObjectSpec(KEY, "video/mp4", len(CONTENT)), CONTENT, crc32c_of(CONTENT))
    return store


def test_all_stores_together_are_read_at_the_rate(store: MemoryBackend) -> None:
    time = Time()
    limit = RateLimit("scrub", lambda: 1000.0, time.reserve, monotonic=lambda: time.seconds)
    one, other = limited([store, store], limit, time.wait)

    assert one.read(KEY) == CONTENT
    assert other.read(KEY, 2000, 5000) == CONTENT[2000:7000]

    assert time.seconds == pytest.approx(15)


def test_what_a_store_can_do_beyond_the_contract_is_passed_on(store: MemoryBackend) -> None:
    [wrapped] = limited([store], RateLimit("scrub", lambda: 1.0, lambda *_: 0.0))

    assert (wrapped.name, wrapped.limits) == (store.name, store.limits)
    assert wrapped.stat(KEY) == store.stat(KEY)
    assert getattr(wrapped, "no_such_ability", None) is None


def test_without_a_limit_nothing_is_wrapped(store: MemoryBackend) -> None:
    assert limited([store], None) == [store]
