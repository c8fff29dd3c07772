"""What a file should be by its name, and whether its first bytes agree.

A CDN's error page with a 200 has been stored as a good segment by public tools (hls.md, trap 6); these checks
are what stands in the way of that.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import partial

from transfer.base import CHECKED_BYTES, SourceInfo
from transfer.base import Check as Check
from transfer.errors import ErrorPage, UnexpectedContent

SNIFF_BYTES = CHECKED_BYTES


class Kind(Enum):
    """What the first bytes must look like. The value is what to call it."""

    MP4 = "an MP4 file"
    WEBM = "a WebM file"
    SEGMENT = "a media segment (MPEG-TS, fragmented MP4, WebVTT, packed audio or an image)"
    KEY = "a key of 16 bytes"
    PLAYLIST = "an HLS playlist"
    IMAGE = "an image"
    ZIP = "a zip"
    JSON = "JSON"
    TEXT = "text"
    ANY = "a file"  # anything but an error page


_UNKNOWN = ("application/octet-stream", None)

# Python's mimetypes calls .ts a Qt translation and .key a PGP key (hls.md, trap 3).
_TYPES: dict[str, tuple[str, Kind]] = {
    "mp4": ("video/mp4", Kind.MP4),
    "m4v": ("video/mp4", Kind.MP4),
    "m4a": ("audio/mp4", Kind.MP4),
    "mov": ("video/quicktime", Kind.MP4),
    "webm": ("video/webm", Kind.WEBM),
    "mkv": ("video/x-matroska", Kind.WEBM),
    "ts": ("video/mp2t", Kind.SEGMENT),
    "m4s": ("video/iso.segment", Kind.SEGMENT),
    "cmfv": ("video/mp4", Kind.SEGMENT),
    "cmfa": ("audio/mp4", Kind.SEGMENT),
    "cmft": ("application/mp4", Kind.SEGMENT),
    "vtt": ("text/vtt", Kind.SEGMENT),
    "webvtt": ("text/vtt", Kind.SEGMENT),
    "aac": ("audio/aac", Kind.SEGMENT),
    "ac3": ("audio/ac3", Kind.SEGMENT),
    "ec3": ("audio/eac3", Kind.SEGMENT),
    "mp3": ("audio/mpeg", Kind.SEGMENT),
    "m3u8": ("application/vnd.apple.mpegurl", Kind.PLAYLIST),
    "m3u": ("application/vnd.apple.mpegurl", Kind.PLAYLIST),
    "key": ("application/octet-stream", Kind.ANY),
    "png": ("image/png", Kind.IMAGE),
    "jpg": ("image/jpeg", Kind.IMAGE),
    "jpeg": ("image/jpeg", Kind.IMAGE),
    "webp": ("image/webp", Kind.IMAGE),
    "zip": ("application/zip", Kind.ZIP),
    "json": ("application/json", Kind.JSON),
    "csv": ("text/csv", Kind.TEXT),
    "txt": ("text/plain", Kind.TEXT),
    "srt": ("application/x-subrip", Kind.TEXT),
}

_EBML = b"\x1a\x45\xdf\xa3"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_BOM = b"\xef\xbb\xbf"
_MARKUP = re.compile(rb"<(?:!doctype|html|head|body|\?xml|error|!--)", re.IGNORECASE)
_FILE_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"uuid"}
_SEGMENT_BOXES = _FILE_BOXES | {b"moof", b"sidx", b"ssix", b"emsg", b"prft", b"mfra"}


def extension(name: str) -> str:
    """`mp4` of `a/b.MP4`; empty where there is none."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return end.lower() if dot and stem else ""


def content_type(path: str) -> str:
    """For the object stored at `path`, by its extension."""
    return type_and_kind(path)[0]


def kind_of(path: str) -> Kind | None:
    """What a file of this name should be; None when the extension says nothing."""
    return type_and_kind(path)[1]


def type_and_kind(path: str) -> tuple[str, Kind | None]:
    """Both at once."""
    return _TYPES.get(extension(path), _UNKNOWN)


def check_for(kind: Kind, name: str) -> Check:
    """Check the first SNIFF_BYTES bytes of the file `name` (all, if there are fewer). Raises ErrorPage, or
    UnexpectedContent, which says what they look like. An empty file is of no kind."""
    return partial(_check, kind, name)


def check_for_path(path: str) -> Check:
    return check_for(kind_of(path) or Kind.ANY, path)


def sniff(start: bytes) -> Kind | None:
    """What a file that begins so is, if it is one of the forms in which recordings come."""
    if is_markup(start):
        return None
    for kind in (Kind.ZIP, Kind.PLAYLIST, Kind.WEBM, Kind.IMAGE, Kind.MP4, Kind.SEGMENT):
        if _agrees(kind, start):
            return kind
    return None


def is_markup(start: bytes) -> bool:
    """Whether it looks like a web page or an XML answer, the usual forms of an error."""
    return _MARKUP.match(start.removeprefix(_BOM).lstrip()) is not None


def describe(start: bytes) -> str:
    """For an error message; never more than a few bytes of the file itself."""
    if is_markup(start):
        is_xml = start.removeprefix(_BOM).lstrip().lower().startswith((b"<?xml", b"<error"))
        return "what looks like an XML error answer" if is_xml else "what looks like an HTML page"
    if kind := sniff(start):
        return kind.value
    if start.lstrip()[:1] in (b"{", b"["):
        return "what looks like JSON"
    return f"{len(start)} bytes beginning with {start[:12]!r}"


def _check(kind: Kind, name: str, start: bytes, info: SourceInfo | None = None) -> None:  # noqa: ARG001
    if not start:
        raise UnexpectedContent(f"{name}: expected {kind.value}, got an empty body")
    if is_markup(start):
        raise ErrorPage(f"{name}: expected {kind.value}, got {describe(start)}")
    if not _agrees(kind, start):
        raise UnexpectedContent(f"{name}: expected {kind.value}, got {describe(start)}")


def _agrees(kind: Kind, start: bytes) -> bool:
    match kind:
        case Kind.SEGMENT:
            return _is_segment(start)
        case Kind.MP4:
            return start[4:8] in _FILE_BOXES
        case Kind.WEBM:
            return start.startswith(_EBML)
        case Kind.KEY:
            return len(start) == 16 and not is_markup(start)
        case Kind.PLAYLIST:
            return start.removeprefix(_BOM).startswith(b"#EXTM3U")
        case Kind.IMAGE:
            return _is_image(start)
        case Kind.ZIP:
            return start.startswith((b"PK\x03\x04", b"PK\x05\x06"))
        case Kind.JSON:
            return re.match(rb'[{\["0-9tfn-]', start.removeprefix(_BOM).lstrip()) is not None
        case Kind.TEXT:
            return not is_markup(start) and (
                b"\0" not in start or start.startswith((b"\xff\xfe", b"\xfe\xff"))
            )
        case Kind.ANY:
            return not is_markup(start)


def _is_segment(start: bytes) -> bool:
    """The container decides, not the extension: players do the same."""
    return (
        _is_transport_stream(start)
        or start[4:8] in _SEGMENT_BOXES
        or start.removeprefix(_BOM).startswith(b"WEBVTT")
        or start.startswith((b"ID3", b"\x0b\x77", _EBML))
        or (len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0)  # ADTS or MPEG audio
        or _is_image(start)
    )


def _is_transport_stream(start: bytes) -> bool:
    """The sync byte at every packet (188 bytes, or 192 with a time code) that can be seen."""
    return any(syncs and not syncs.strip(b"\x47") for syncs in (start[::188], start[4::192]))


def _is_image(start: bytes) -> bool:
    return start.startswith((_PNG, _JPEG)) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
