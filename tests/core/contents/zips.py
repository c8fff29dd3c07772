"""Zips made by `zipfile` and by hand, opened over real HTTP, and copied as the core copies them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType

from typing_extensions import Buffer

from archiver.core.contents.base import Doubt, Item, Phase
from archiver.core.contents.zip.zipped import ZipContents
from archiver.retry_policy import REQUEST
from archiver.transfer.base import CHECKED_BYTES, Reader, SourceInfo
from archiver.transfer.errors import SourceMismatch, UnexpectedContent
from archiver.transfer.http import HttpClient
from archiver.transfer.source import HttpSource
from tests.core.contents.origin import Origin, read_source, signed

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
AT_ONCE = replace(REQUEST, base=timedelta())
TS = (b"G" + bytes(187)) * 4  # begins as a transport stream does


class Unseekable(io.RawIOBase):
    """What makes `zipfile` write data descriptors."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        self.data += memoryview(data)
        return memoryview(data).nbytes


def zipped(
    files: Mapping[str, bytes], method: int = DEFLATED, *, zip64: bool = False, descriptors: bool = False
) -> bytes:
    held: io.BytesIO | Unseekable = Unseekable() if descriptors else io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, body in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(body)
    return bytes(held.data) if isinstance(held, Unseekable) else held.getvalue()


def tree(others: Mapping[str, bytes] = MappingProxyType({}), segments: int = 2) -> dict[str, bytes]:
    """A master, one layer of `segments`, and what else is given by name."""
    names = [f"v/{number}.ts" for number in range(segments)]
    return {
        "master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv/v.m3u8\n",
        "v/v.m3u8": media([name.removeprefix("v/") for name in names]),
        **dict.fromkeys(names, TS),
        **others,
    }


def media(uris: list[str], *, tags: str = "", end: str = "#EXT-X-ENDLIST\n") -> bytes:
    lines = "".join(f"#EXTINF:2,\n{uri}\n" for uri in uris)
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n{tags}{lines}{end}".encode()


def patched(data: bytes, what: bytes, by: bytes) -> bytes:
    assert data.count(what) >= 1
    return data.replace(what, by)


def set_field(data: bytes, record: bytes, offset: int, value: int) -> bytes:
    """The first `record` with another 16-bit value at `offset`."""
    at = data.index(record) + offset
    return data[:at] + struct.pack("<H", value) + data[at + 2 :]


def damaged(data: bytes, inside: bytes) -> bytes:
    """One bit changed in the middle of `inside`, which is stored."""
    assert data.count(inside) == 1
    at = data.index(inside) + len(inside) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


class InMemory:
    """`transfer.base.Source` over bytes, for what needs many zips quickly."""

    name = "memory://zip"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.info = SourceInfo(size_bytes=len(data), ranges=True)

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        raise NotImplementedError

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        assert start + len(into) <= len(self.data)
        into[:] = self.data[start : start + len(into)]


def in_memory(data: bytes, **options: object) -> ZipContents:
    source = InMemory(data)
    values = {"name": "rec.zip", "version": "v1", "policy": AT_ONCE, **options}
    return ZipContents(source, source.info, **values)  # type: ignore[arg-type]


def open_zip(client: HttpClient, origin: Origin, data: bytes, **options: object) -> ZipContents:
    origin.files["/rec.zip"] = data
    source = HttpSource(client, signed(f"{origin.url}/rec.zip?sig=1"))
    info, reader = source.open(CHECKED_BYTES)
    reader.close()
    values = {"name": "rec.zip", "version": "v1", "policy": AT_ONCE, **options}
    return ZipContents(source, info, **values)  # type: ignore[arg-type]


@dataclass
class Taken:
    """What an attempt got out of a zip, by path. `refused`: what is not stored, and why."""

    files: dict[str, bytes] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    doubts: list[Doubt] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def doubtful(self) -> str:
        """All that is said against it, in one text; empty for a zip that is archived."""
        reported = [str(doubt) for doubt in self.doubts]
        return "\n".join([*reported, *(f"{path}: {words}" for path, words in self.refused.items())])

    @property
    def missing(self) -> set[str | None]:
        return {doubt.path for doubt in self.doubts if doubt.missing}


def take(contents: ZipContents, *, keeping: bool = False) -> Taken:
    """Copy as the core does: what its check or its chunks refuse costs this item alone; with `keeping`, checks cost
    nothing. Holds the items to the promises of `Item` and `Phase`."""
    taken, phase = Taken(), Phase.MEDIA
    for item in contents.items():
        assert item.phase >= phase, f"{item.path} of phase {item.phase.name} came after {phase.name}"
        assert item.path not in taken.files, f"{item.path} came twice"
        assert item.path not in taken.refused, f"{item.path} came twice"
        phase = item.phase
        assert sum(body is not None for body in (item.source, item.chunks, item.data)) == 1
        try:
            body = _body(item)
        except SourceMismatch as error:
            taken.refused[item.path] = str(error)
            continue
        try:
            if item.check is not None:
                item.check(body[:CHECKED_BYTES], None)
            if item.structure is not None:
                item.structure.saw(0, memoryview(body))
                item.structure.finish(len(body), None)
        except UnexpectedContent as error:
            taken.refused[item.path] = str(error)
            if not keeping:
                continue
        assert item.size_bytes in (None, len(body))
        taken.files[item.path] = body
        taken.items[item.path] = item
    taken.doubts = contents.notes.doubts
    taken.warnings = contents.notes.warnings
    return taken


def _body(item: Item) -> bytes:
    if item.source is not None:
        return item.source.data if isinstance(item.source, InMemory) else read_source(item.source)
    if item.chunks is not None:
        return b"".join(bytes(chunk) for chunk in item.chunks)
    assert item.data is not None
    return item.data
