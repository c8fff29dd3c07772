from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_backends import crc32c as crc
from storage_backends.base import Part


def test_the_check_value_of_the_standard() -> None:
    assert crc.crc32c_of(b"123456789") == 0xE3069283


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_the_crc_of_the_whole_follows_from_its_parts(pieces: list[bytes]) -> None:
    parts = [Part(n, len(piece), crc.crc32c_of(piece), "") for n, piece in enumerate(pieces, start=1)]

    assert crc.of_parts(parts) == crc.crc32c_of(b"".join(pieces))


@pytest.mark.parametrize("size", [2**20, 50 * 2**30, 5 * 2**40])
def test_combining_knows_no_limit_of_size(size: int) -> None:
    """The CRC of many zeros, computed by doubling."""
    crc_of_zeros, length = crc.crc32c_of(b"\0"), 1
    total, total_bytes, rest = 0, 0, size
    while rest:
        if rest & 1:
            total, total_bytes = crc.combine(total, crc_of_zeros, length), total_bytes + length
        crc_of_zeros, length, rest = crc.combine(crc_of_zeros, crc_of_zeros, length), length * 2, rest >> 1

    assert total_bytes == size
    assert crc.combine(crc.combine(7, total, size), 0, 0) == crc.combine(7, total, size)
    if size == 2**20:
        assert total == crc.crc32c_of(bytes(size))


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_any_buffer_and_any_beginning_give_the_same(data: bytes, cut: int) -> None:
    whole = crc.crc32c_of(data)

    assert crc.crc32c_of(bytearray(data)) == whole
    assert crc.crc32c_of(memoryview(bytearray(b"x" + data))[1:]) == whole
    assert crc.crc32c_of(data[cut:], crc.crc32c_of(data[:cut])) == whole


@given(st.integers(0, 2**32 - 1))
def test_base64_is_read_as_it_was_written(value: int) -> None:
    assert crc.from_base64(crc.to_base64(value)) == value


@pytest.mark.parametrize("text", [None, "", "AAAAAA==-3", "AAAAAAA=", "!!!", "AAAA"])
def test_what_is_no_crc_of_a_whole_object_is_none(text: str | None) -> None:
    assert crc.from_base64(text) is None
