"""Zips that are kept packed: those that cannot be unpacked, with a doubt that says why; and those that nobody wants to
be unpacked, whose members nobody judges."""

from __future__ import annotations

import io
import random
import re
import struct
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.core.contents.base import Doubt
from archiver.core.contents.zip.structure import ZipStructure
from archiver.core.contents.zip.zipped import ZipMode
from archiver.transfer.errors import UnexpectedContent
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Origin
from tests.core.contents.zips import (
    STORED,
    TS,
    in_memory,
    open_zip,
    patched,
    set_field,
    take,
    tree,
    zipped,
)

FILES = tree()


# -- making them ---------------------------------------------------------------------------------------------
def _with_flags(flags: int) -> bytes:
    data = zipped(FILES)
    return set_field(set_field(data, b"PK\x03\x04", 6, flags), b"PK\x01\x02", 8, flags)


def _with_method(method: int) -> bytes:
    """One member of them says so."""
    data = zipped(FILES)
    return set_field(set_field(data, b"PK\x03\x04", 8, method), b"PK\x01\x02", 10, method)


def _packed_by(method: int) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, body in FILES.items():
            archive.writestr(name, body)
        archive.writestr("v/2.ts", TS * 10, compress_type=method)
    return held.getvalue()


def _with_count(data: bytes, count: int) -> bytes:
    return set_field(set_field(data, b"PK\x05\x06", 8, count), b"PK\x05\x06", 10, count)


def _symlink() -> bytes:
    held = io.BytesIO()
    link = zipfile.ZipInfo("a.ts")
    link.create_system = 3
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    return held.getvalue()


def _overlapping() -> bytes:
    """The second entry of the directory points at the first member's data."""
    data = zipped({"a.ts": bytes(100), "b.ts": bytes(100)}, STORED)
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    return data[: entry + 42] + struct.pack("<L", 0) + data[entry + 46 :]


def _behind(other: bytes) -> bytes:
    """Offsets counted from the first byte of the file, as self-extractors are made."""
    held = io.BytesIO(other)
    held.seek(len(other))
    with zipfile.ZipFile(held, "a") as archive:
        for name, body in FILES.items():
            archive.writestr(name, body)
    return held.getvalue()


def _with_comment(reported: int, real: bytes) -> bytes:
    data = zipped(FILES)
    return data[:-2] + struct.pack("<H", reported) + real


def _folder_with_content() -> bytes:
    return patched(zipped({"folder|": b"content"}), b"folder|", b"folder/")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name that climbs": (lambda: zipped({**FILES, "a/../../etc/x.ts": b"x"}), "leads out"),
    "an absolute name": (lambda: zipped({**FILES, "/etc/x.ts": b"x"}), "absolute"),
    "a drive letter": (lambda: zipped({**FILES, "C:/x.ts": b"x"}), "absolute"),
    "a backslash": (lambda: patched(zipped({**FILES, "v|x.ts": b"x"}), b"v|x", b"v\\x"), "has a backslash"),
    "a control character": (lambda: zipped({**FILES, "a\x1b[2J.ts": b"x"}), "no plain path"),
    "an empty segment": (lambda: zipped({**FILES, "a//x.ts": b"x"}), "no plain path"),
    "a name that is not the UTF-8 it says": (
        lambda: patched(zipped({"caf\u00e9.ts": b"x"}), "\u00e9".encode(), b"\xff\xfe"),
        "not the UTF-8",
    ),
    "a name twice": (
        lambda: patched(zipped({**FILES, "a1.ts": b"x", "a2.ts": b"y"}), b"a2.ts", b"a1.ts"),
        "twice",
    ),
    "a symbolic link": (_symlink, "symbolic link"),
    "a folder with content": (_folder_with_content, "folder with content"),
    "two members in one place": (_overlapping, "overlaps"),
    "a bomb": (lambda: zipped({**FILES, "a.ts": bytes(80 * 2**20)}), "bomb"),
}
UNSUPPORTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "encryption": (lambda: _with_flags(1), "encrypted"),
    "strong encryption": (lambda: _with_flags(0x41), "encrypted"),
    "an encrypted directory": (lambda: _with_flags(0x2000), "encrypted"),
    "Deflate64": (lambda: _with_method(9), "method 9 .Deflate64."),
    "one member by bzip2": (lambda: _packed_by(zipfile.ZIP_BZIP2), "method 12 .bzip2."),
    "one member by LZMA": (lambda: _packed_by(zipfile.ZIP_LZMA), "method 14 .LZMA."),
    "Zstandard": (lambda: _with_method(93), "method 93 .Zstandard."),
    "xz": (lambda: _with_method(95), "method 95 .xz."),
    "a method that nobody knows": (lambda: _with_method(77), "method 77;"),
}
NOT_WHOLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a cut end": (lambda: zipped(FILES)[:-30], "no end record"),
    "half of it": (lambda: (data := zipped(FILES))[: len(data) // 2], "no end record"),
    "a cut start": (lambda: zipped(FILES)[100:], "its directory does not end where"),
    "one of several disks": (lambda: set_field(zipped(FILES), b"PK\x05\x06", 4, 1), "split zip"),
    "garbage behind it": (lambda: zipped(FILES) + b"garbage", "7 bytes follow its end record"),
    "a page behind it": (lambda: zipped(FILES) + b"<html>" * 9, "54 bytes follow"),
    "a comment longer than it says": (lambda: _with_comment(3, b"four"), "1 bytes follow"),
    "a comment shorter than it says": (lambda: _with_comment(5, b"four"), "comment at its end is cut"),
    "a program before it": (lambda: b"MZ" + bytes(500) + zipped(FILES), "502 bytes lie before"),
    "two zips, one behind the other": (lambda: zipped(FILES) + zipped(FILES), "bytes lie before"),
    "a directory that is none": (
        lambda: patched(zipped(FILES), b"PK\x01\x02", b"PK\x01\x03"),
        "its directory is",
    ),
    "nothing in it": (lambda: zipped({}), "it (is empty|holds no files)"),
    "no zip at all": (lambda: b"PK\x03\x04" + bytes(1000), "no end record"),
    "a zip64 locator that leads nowhere": (
        lambda: (data := zipped(FILES))[:-22] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 10, 1) + data[-22:],
        "Zip64 end record",
    ),
}
OTHER_STRUCTURE: dict[str, tuple[Callable[[], bytes], str]] = {
    "another count": (lambda: _with_count(zipped(FILES), 9), "of 9 members"),
    "fewer than there are": (lambda: _with_count(zipped(FILES), 2), "of 2 members"),
    "a program before it, counted in": (lambda: _behind(b"MZ" + bytes(500)), "502 bytes lie before"),
}
KEPT = {**HOSTILE, **UNSUPPORTED, **NOT_WHOLE, **OTHER_STRUCTURE}


# -- UNPACK and BOTH -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", [ZipMode.UNPACK, ZipMode.BOTH])
@pytest.mark.parametrize("what", KEPT)
def test_what_cannot_be_unpacked_is_kept_packed_with_a_doubt(
    client: HttpClient, origin: Origin, what: str, mode: ZipMode
) -> None:
    make, complaint = KEPT[what]
    data = make()

    made = take(open_zip(client, origin, data, mode=mode))

    assert made.files == {"rec.zip": data}, "as the source has it, in the first attempt"
    assert made.items["rec.zip"].content_type == "application/zip"
    assert made.refused == {}
    [doubt] = made.doubts
    assert doubt.path == "rec.zip"
    assert not doubt.missing
    assert not doubt.unready
    assert _says(doubt, complaint)


def _says(doubt: Doubt, complaint: str) -> bool:
    return re.search(complaint, doubt.what) is not None


def test_two_attempts_find_the_same_words(client: HttpClient, origin: Origin) -> None:
    for make, _ in KEPT.values():
        data = make()
        first, second = (open_zip(client, origin, data).notes.doubts for _ in range(2))
        assert first == second


# -- KEEP ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", [*HOSTILE, *UNSUPPORTED])
def test_members_that_are_not_unpacked_are_not_judged(client: HttpClient, origin: Origin, what: str) -> None:
    data = {**HOSTILE, **UNSUPPORTED}[what][0]()

    made = take(open_zip(client, origin, data, mode=ZipMode.KEEP))

    assert made.files == {"rec.zip": data}
    assert made.doubtful == ""


@pytest.mark.parametrize("what", NOT_WHOLE)
def test_a_zip_that_is_not_whole_is_doubtful_packed_too(
    client: HttpClient, origin: Origin, what: str
) -> None:
    make, complaint = NOT_WHOLE[what]
    data = make()

    made = take(open_zip(client, origin, data, mode=ZipMode.KEEP))

    assert made.files == {"rec.zip": data}
    [doubt] = made.doubts
    assert _says(doubt, complaint)


@pytest.mark.parametrize("what", NOT_WHOLE)
def test_without_ranges_it_is_found_doubtful_while_it_is_copied(
    client: HttpClient, origin: Origin, what: str
) -> None:
    make, complaint = NOT_WHOLE[what]
    data = make()
    origin.ranges = False
    contents = open_zip(client, origin, data, mode=ZipMode.KEEP)

    strict, keeping = take(contents), take(contents, keeping=True)

    assert strict.files == {}
    assert _says(Doubt(strict.refused["rec.zip"]), complaint) or not data.startswith(b"PK")
    assert keeping.files == {"rec.zip": data}


def test_a_whole_zip_is_kept_without_ranges_and_without_a_doubt(client: HttpClient, origin: Origin) -> None:
    data = zipped(FILES)
    origin.ranges = False

    made = take(open_zip(client, origin, data, mode=ZipMode.KEEP))

    assert made.files == {"rec.zip": data}
    assert made.doubtful == ""


def test_of_a_zip_that_is_kept_only_its_end_is_looked_at(client: HttpClient, origin: Origin) -> None:
    data = zipped({f"{number}.ts": random.Random(number).randbytes(5000) for number in range(300)}, STORED)

    open_zip(client, origin, data, mode=ZipMode.KEEP)

    asked = [request.headers["range"].removeprefix("bytes=") for request in origin.requests[1:]]
    read = sum(int(last) - int(first) + 1 for first, last in (each.split("-") for each in asked))
    assert read < 70_000
    assert len(asked) == 2


# -- the structure, while it is copied -----------------------------------------------------------------------
@given(st.integers(100, 120_000), st.integers(0, 2**32), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_parts_may_come_in_any_order(part_bytes: int, seed: int, whole: bool, readable: bool) -> None:
    chaos = random.Random(seed)
    data = zipped({f"{number}.ts": chaos.randbytes(chaos.randrange(30_000)) for number in range(20)}, STORED)
    data = data if whole else data[: -chaos.randrange(1, 500)]
    parts = list(range(0, len(data), part_bytes))
    if readable:
        chaos.shuffle(parts)
        parts = parts[chaos.randrange(len(parts)) :]  # the others an earlier attempt had stored

    def read(start: int, into: memoryview) -> None:
        into[:] = data[start : start + len(into)]

    structure = ZipStructure("rec.zip")
    for start in parts:
        structure.saw(start, memoryview(data)[start : start + part_bytes])

    if whole:
        structure.finish(len(data), read if readable else None)
    else:
        with pytest.raises(UnexpectedContent, match=r"rec\.zip"):
            structure.finish(len(data), read if readable else None)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_zip_is_stored_packed_or_gives_what_was_in_it(data: st.DataObject) -> None:
    """Whatever is damaged: what is stored unpacked has the bytes that were packed, or there is a doubt."""
    files = {"a.ts": TS, "b/c.ts": TS + random.Random(1).randbytes(300)}
    whole = bytearray(zipped(files, data.draw(st.sampled_from([STORED, zipfile.ZIP_DEFLATED]))))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))

    made = take(in_memory(bytes(whole)))

    unpacked = {path: body for path, body in made.files.items() if not path.endswith(".zip")}
    assert set(unpacked.values()) <= set(files.values())
    if sorted(unpacked.values()) != sorted(files.values()):
        assert bytes(whole) in made.files.values()
        assert made.doubtful
