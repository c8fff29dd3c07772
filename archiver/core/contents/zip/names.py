"""Decode the names of zip members, and reject those that are not plain relative paths."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from archiver.core.errors import BadContents

_UTF8_FLAG = 0x800
_UNICODE_PATH = (
    0x7075  # Info-ZIP's extra field (APPNOTE 4.6.9): the name in UTF-8, with the CRC-32 of the other name
)
_DRIVE = re.compile(r"[A-Za-z]:")
_SHOWN = 80


def member_name(raw: bytes, flags: int, extra: bytes) -> str:
    """Decode a name; a folder's ends with a slash. Raises BadContents for one that leads out of the zip or is not a
    plain path."""
    name = _decode(raw, flags, extra)
    while name.startswith("./"):
        name = name[2:]
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or _DRIVE.match(name):
        raise BadContents(f"member {name[:_SHOWN]!r} has an absolute name")
    if "\\" in name:
        raise BadContents(f"member {name[:_SHOWN]!r} has a backslash in its name, as a Windows path has")
    if ".." in parts:
        raise BadContents(f"member {name[:_SHOWN]!r} has a name that leads out of the zip")
    if not all(part not in ("", ".") and part.isprintable() for part in parts):
        raise BadContents(f"member {name[:_SHOWN]!r} has a name that is no plain path")
    return name


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield id and data of each extra field (APPNOTE 4.5.1), up to the first that is cut."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if at + length > len(extra):
            return
        yield kind, extra[at : at + length]
        at += length


def _decode(raw: bytes, flags: int, extra: bytes) -> str:
    """Decode a name. Without the UTF-8 flag APPNOTE (appendix D) says cp437, but many programs write UTF-8."""
    try:
        if flags & _UTF8_FLAG:
            return raw.decode("utf-8")
        for kind, data in extra_fields(extra) if extra else ():
            if kind == _UNICODE_PATH and data[:5] == b"\x01" + struct.pack("<L", zlib.crc32(raw)):
                return data[5:].decode("utf-8")
    except UnicodeDecodeError:
        raise BadContents(f"member {raw[:_SHOWN]!r} has a name that is not the UTF-8 it says") from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")
