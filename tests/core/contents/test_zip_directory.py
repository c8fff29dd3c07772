"""The limits of what is unpacked."""

from __future__ import annotations

import pytest

from archiver.core.contents.zip.directory import ZipLimits, read_directory
from archiver.core.errors import BadContents
from tests.core.contents.zips import DEFLATED, in_memory, zipped

DATA = zipped({"a.ts": bytes(1000), "b.ts": bytes(1000)}, DEFLATED)


def read(start: int, length: int) -> bytes:
    return DATA[start : start + length]


LIMITS = {
    "two members": (ZipLimits(members=1), ZipLimits(members=2), "2 members"),
    "its directory": (
        ZipLimits(directory_bytes=99),
        ZipLimits(directory_bytes=100),
        "directory of 100 bytes",
    ),
    "2,000 bytes inflated": (ZipLimits(total_bytes=1999), ZipLimits(total_bytes=2000), "inflates to 2000"),
    "all of it inflated": (
        ZipLimits(ratio_from_bytes=100),
        ZipLimits(ratio_from_bytes=100, total_ratio=1000),
        "to 2000 bytes: a bomb",
    ),
    "one member inflated": (
        ZipLimits(ratio_from_bytes=100, total_ratio=1000, member_ratio=10),
        ZipLimits(ratio_from_bytes=1000, total_ratio=1000, member_ratio=10),
        "'a.ts' inflates",
    ),
}


@pytest.mark.parametrize("what", LIMITS)
def test_limits_are_settings(what: str) -> None:
    too_low, enough, complaint = LIMITS[what]

    with pytest.raises(BadContents, match=complaint):
        read_directory(read, len(DATA), too_low)
    assert len(read_directory(read, len(DATA), enough)) == 2


def test_limits_hold_for_what_is_unpacked_and_the_zip_is_kept() -> None:
    contents = in_memory(DATA, limits=ZipLimits(members=1))

    assert [item.path for item in contents.items()] == ["rec.zip"]
    assert "more than is unpacked" in contents.notes.doubts[0].what
