"""Part sizes, checksums of parts, patience and pace: the small decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer.pace import Pace

from storage_backends.base import Limits, StorageBackend
from storage_backends.memory import LIMITS, MemoryBackend
from tests.transfer.stores import Wrapped
from transfer.checksums import Crc32c, combine, crc32c
from transfer.errors import SourceForbidden, SourceUnavailable
from transfer.part_sizes import Parts, part_size
from transfer.retrying import RetryPolicy

MIB = 1024 * 1024


class Limited(Wrapped):
    def __init__(self, limits: Limits) -> None:
        super().__init__(MemoryBackend("limited"))
        self._limits = limits

    @property
    def limits(self) -> Limits:
        return self._limits


# -- part sizes ----------------------------------------------------------------------------------------------
limits = st.builds(
    lambda least, multiple, most: replace(
        LIMITS, min_part_bytes=least, part_multiple_bytes=multiple, max_parts=most
    ),
    st.sampled_from([1, 5 * MIB]),
    st.sampled_from([1, 4096, 256 * 1024]),
    st.sampled_from([1000, 10_000]),
)


@given(st.integers(1, 5 * 1024**4), st.integers(1, 64 * MIB), st.lists(limits, min_size=1, max_size=3))
@settings(deadline=None)
def test_a_part_size_suits_every_store(size: int, at_least: int, given_limits: list[Limits]) -> None:
    stores: Sequence[StorageBackend] = [Limited(limit) for limit in given_limits]

    parts = Parts(size, part_size(size, at_least, stores))

    assert parts.part_bytes >= at_least
    for limit in given_limits:
        assert parts.part_bytes >= limit.min_part_bytes
        assert parts.part_bytes % limit.part_multiple_bytes == 0
        assert parts.count <= limit.max_parts
    assert sum(map(parts.size_of, (1, parts.count))) <= 2 * parts.part_bytes
    assert parts.start_of(parts.count) + parts.size_of(parts.count) == size
    assert parts.size_of(parts.count + 1) == 0


def test_the_part_size_stays_until_nine_thousand_parts() -> None:
    store = [Limited(LIMITS)]

    assert part_size(50 * 1024**3, 16 * MIB, store) == 16 * MIB
    assert part_size(9000 * 16 * MIB, 16 * MIB, store) == 16 * MIB
    assert part_size(9000 * 16 * MIB + 1, 16 * MIB, store) == 16 * MIB + 1
    assert part_size(None, 16 * MIB, store) == 16 * MIB


# -- checksums -----------------------------------------------------------------------------------------------
@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=6))
@settings(deadline=None)
def test_the_whole_follows_from_the_parts_wherever_they_are_cut(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    combined, running = 0, Crc32c()
    for piece in pieces:
        combined = combine(combined, crc32c(bytearray(piece)), len(piece))
        running.update(memoryview(piece))

    assert combined == running.value == google_crc32c.value(data)


def test_the_whole_of_very_large_parts_follows_too() -> None:
    """Against the definition: appending zeros to A is A combined with that many zeros."""
    zeros = bytes(MIB)
    appended = crc32c(b"recording")
    for _ in range(64):
        appended = google_crc32c.extend(appended, zeros)

    many = 0
    for _ in range(64):
        many = combine(many, crc32c(zeros), MIB)

    assert combine(crc32c(b"recording"), many, 64 * MIB) == appended


# -- patience ------------------------------------------------------------------------------------------------
def always(_: Exception) -> bool:
    return True


def test_patience_ends_after_its_tries() -> None:
    slept: list[float] = []
    tries: list[int] = []

    def action() -> None:
        tries.append(1)
        raise SourceUnavailable("no")

    with pytest.raises(SourceUnavailable):
        Patience(sleep=slept.append).keep_trying(action, always)

    assert len(tries) == 4
    assert all(0 <= pause <= 0.5 * 2**n for n, pause in enumerate(slept))
    assert len(slept) == 3


def test_what_is_not_worth_it_is_not_tried_again() -> None:
    tries: list[int] = []

    def action() -> None:
        tries.append(1)
        raise SourceForbidden("no")

    with pytest.raises(SourceForbidden):
        RetryPolicy(first_pause=timedelta()).keep_trying(action, lambda e: isinstance(e, SourceUnavailable))
    assert len(tries) == 1


@pytest.mark.parametrize(("asked", "tries"), [(15, 4), (21, 1)])
def test_the_other_sides_wish_is_a_pause_unless_the_ledger_waits_better(asked: int, tries: int) -> None:
    slept: list[float] = []
    tried: list[int] = []

    def action() -> None:
        tried.append(1)
        raise SourceUnavailable("no", timedelta(seconds=asked))

    with pytest.raises(SourceUnavailable):
        Patience(sleep=slept.append).keep_trying(action, always)

    assert len(tried) == tries
    assert all(pause >= asked for pause in slept)


# -- pace ----------------------------------------------------------------------------------------------------
class Network:
    """Gives each connection `cap` bytes a second, all together no more than `link`."""

    def __init__(self, cap: int, link: int, most: int = 64) -> None:
        self.cap, self.link = cap, link
        self.now = 0.0
        self.connections = 0
        self.history: list[int] = []
        self.pace = Pace(most, self.apply, lambda: self.now)

    def apply(self, connections: int) -> None:
        self.connections = connections
        self.history.append(connections)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            rate = min(self.connections * self.cap, self.link)
            self.now += 1_000_000 / rate
            self.pace.moved(1_000_000)


def test_connections_grow_while_each_brings_its_own_share() -> None:
    network = Network(cap=20_000_000, link=10**12, most=32)

    network.run(5)

    assert network.connections == 32


def test_connections_stop_growing_when_the_link_is_full() -> None:
    network = Network(cap=20_000_000, link=250_000_000)

    network.run(14)

    assert 12 <= network.connections <= 18


def test_connections_are_halved_when_the_source_says_slower_and_grow_again_later() -> None:
    network = Network(cap=20_000_000, link=10**12, most=32)
    network.run(5)

    for _ in range(10):  # one refusal brings its siblings along
        network.pace.throttled()
    halved = network.connections
    network.run(10)
    calm = network.connections
    network.run(30)

    assert (halved, calm, network.connections) == (16, 16, 32)


def test_there_is_always_one_connection_and_never_more_than_allowed() -> None:
    for most in (1, 2, 3):
        network = Network(cap=20_000_000, link=10**12, most=most)
        for _ in range(20):
            network.pace.throttled()
            network.now += 100
        network.run(60)

        assert all(1 <= number <= most for number in network.history)
