"""Part sizes, and checksums of parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from itertools import pairwise

import google_crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.transfer.checksums import Crc32c, combine, crc32c
from archiver.transfer.part_sizes import Parts, part_size
from storage_backends.base import Limits, StorageBackend
from storage_backends.memory import LIMITS, MemoryBackend
from tests.transfer.stores import Wrapped

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


@given(st.lists(st.binary(max_size=100)))
def test_what_is_written_is_measured_along_with_it(pieces: list[bytes]) -> None:
    written, crc = BytesIO(), Crc32c()
    write = crc.along(written.write)
    for piece in pieces:
        write(piece)

    assert written.getvalue() == b"".join(pieces)
    assert crc.value == crc32c(written.getvalue())
