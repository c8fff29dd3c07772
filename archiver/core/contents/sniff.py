"""Compare what a file should be by its name with what it is by its first bytes.

Other tools have stored a CDN's error page (status 200) as a segment; these checks prevent that. An error page is never
stored; other disagreements are stored with a doubt.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache

from archiver.core.contents import error_pages, texts
from archiver.core.contents.error_pages import Likeness
from archiver.transfer.base import CHECKED_BYTES, SourceInfo
from archiver.transfer.base import Check as Check
from archiver.transfer.errors import ErrorPage, UnexpectedContent

SNIFF_BYTES = CHECKED_BYTES
_REMEMBERED = 32  # the same bytes are looked at when a file is opened, named and copied


class Kind(Enum):
    """What the first bytes must look like. The value is for messages."""

    MP4 = "an MP4 file"
    WEBM = "a WebM file"
    MATROSKA = "a Matroska file"
    OGG = "an Ogg file"
    WAV = "a WAV file"
    FLAC = "a FLAC file"
    AVI = "an AVI file"
    MP3 = "an MP3 file"
    AAC = "an AAC file"
    AC3 = "an AC-3 file"
    TS = "an MPEG transport stream"
    SEGMENT = "a media segment (MPEG-TS, fragmented MP4 or packed audio)"
    CAPTIONS = "WebVTT captions"  # without a header, or empty, they play too
    KEY = "a key of 16 bytes"
    KEY_256 = "a key of 32 bytes"
    PLAYLIST = "an HLS playlist"
    IMAGE = "an image"
    ZIP = "a zip"
    JSON = "JSON"
    TEXT = "text"
    HTML = "an HTML page"
    ANY = "a file"  # anything but an error page


MEDIA = frozenset(
    {
        Kind.MP4,
        Kind.WEBM,
        Kind.MATROSKA,
        Kind.OGG,
        Kind.WAV,
        Kind.FLAC,
        Kind.AVI,
        Kind.MP3,
        Kind.AAC,
        Kind.AC3,
    }
    | {Kind.TS, Kind.SEGMENT, Kind.IMAGE}
)
"""Kinds of audio, video and images."""

_BINARY = MEDIA | {Kind.ZIP}
_FORMS = (*(kind for kind in Kind if kind in _BINARY - {Kind.SEGMENT}), Kind.PLAYLIST)
_UNKNOWN = ("application/octet-stream", None)

# Not Python's mimetypes, where .ts is a Qt translation and .key a PGP key. HTML, SVG and other XML are stored as
# application/octet-stream, so that no browser runs scripts in them.
_TYPES: dict[str, tuple[str, Kind]] = {
    "mp4": ("video/mp4", Kind.MP4),
    "m4v": ("video/mp4", Kind.MP4),
    "m4a": ("audio/mp4", Kind.MP4),
    "mov": ("video/quicktime", Kind.MP4),
    "3gp": ("video/3gpp", Kind.MP4),
    "webm": ("video/webm", Kind.WEBM),
    "weba": ("audio/webm", Kind.WEBM),
    "mkv": ("video/x-matroska", Kind.MATROSKA),
    "mka": ("audio/x-matroska", Kind.MATROSKA),
    "ogg": ("audio/ogg", Kind.OGG),
    "oga": ("audio/ogg", Kind.OGG),
    "opus": ("audio/ogg", Kind.OGG),
    "ogv": ("video/ogg", Kind.OGG),
    "wav": ("audio/wav", Kind.WAV),
    "flac": ("audio/flac", Kind.FLAC),
    "avi": ("video/x-msvideo", Kind.AVI),
    "ts": ("video/mp2t", Kind.SEGMENT),
    "m4s": ("video/iso.segment", Kind.SEGMENT),
    "cmfv": ("video/mp4", Kind.SEGMENT),
    "cmfa": ("audio/mp4", Kind.SEGMENT),
    "cmft": ("application/mp4", Kind.SEGMENT),
    "vtt": ("text/vtt", Kind.CAPTIONS),
    "webvtt": ("text/vtt", Kind.CAPTIONS),
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
    "tsv": ("text/tab-separated-values", Kind.TEXT),
    "txt": ("text/plain", Kind.TEXT),
    "md": ("text/markdown", Kind.TEXT),
    "srt": ("application/x-subrip", Kind.TEXT),
    "jsonl": ("application/x-ndjson", Kind.TEXT),
    "ttml": ("application/octet-stream", Kind.TEXT),
    "xml": ("application/octet-stream", Kind.TEXT),
    "svg": ("application/octet-stream", Kind.TEXT),
    "html": ("application/octet-stream", Kind.HTML),
    "htm": ("application/octet-stream", Kind.HTML),
}
_EXTENSIONS = {
    Kind.MP4: "mp4",
    Kind.WEBM: "webm",
    Kind.MATROSKA: "mkv",
    Kind.OGG: "ogg",
    Kind.WAV: "wav",
    Kind.FLAC: "flac",
    Kind.AVI: "avi",
    Kind.MP3: "mp3",
    Kind.AAC: "aac",
    Kind.AC3: "ac3",
    Kind.TS: "ts",
    Kind.ZIP: "zip",
    Kind.PLAYLIST: "m3u8",
}

_EBML = b"\x1a\x45\xdf\xa3"
_DOC_TYPE = re.compile(rb"\x42\x82[\x81-\x8f](webm|matroska)")
_IMAGES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))
_BOM = b"\xef\xbb\xbf"
_MP4_BOXES = {b"ftyp", b"moov", b"mdat", b"styp", b"moof", b"sidx", b"ssix", b"emsg", b"prft", b"mfra"}
_MP4_WORDS = {b"wide", b"free", b"skip", b"pnot", b"uuid"}  # boxes, and words: "the free market"
_MPEG_AUDIO = re.compile(rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][^\xf0-\xff]|ID3[\x02-\x04]", re.DOTALL)
_ADTS = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")


def extension(name: str) -> str:
    """Return `mp4` for `a/b.MP4`; empty if there is none."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return end.lower() if dot and stem else ""


def content_type(path: str) -> str:
    """Return the Content-Type of the object at `path`, by its extension."""
    return type_and_kind(path)[0]


def kind_of(path: str) -> Kind | None:
    """Return what a file of this name should be; None for an unknown extension."""
    return type_and_kind(path)[1]


def type_and_kind(path: str) -> tuple[str, Kind | None]:
    """Return both `content_type` and `kind_of`."""
    return _TYPES.get(extension(path), _UNKNOWN)


def extension_of(kind: Kind | None) -> str | None:
    """Return the usual extension of a kind that `sniff` finds."""
    return _EXTENSIONS.get(kind) if kind else None


def content_type_of(path: str, start: bytes) -> str:
    """Return the Content-Type of the object at `path` that begins with `start`: by its bytes if they are markup, or
    media of another kind than its name says; else by its name."""
    by_name, named = type_and_kind(path)
    found = sniff(start)
    if found is Kind.IMAGE:
        return next(kind for begins, kind in _IMAGES if start.startswith(begins))
    if found in MEDIA and found is not named and not (named is Kind.SEGMENT and _is_segment(start)):
        return content_type(f"a.{extension_of(found)}")
    return _UNKNOWN[0] if texts.is_markup(start) else by_name


def check_for(kind: Kind, name: str, api_size_bytes: int | None = None) -> Check:
    """Make a check of the first SNIFF_BYTES of the file `name` (all, if there are fewer) against `kind` and for error
    pages; a response as long as the API says is not one. The check raises UnexpectedContent, and ErrorPage if it is
    given `info` (a member of a container is no response)."""

    if kind is Kind.SEGMENT and kind_of(name) is Kind.CAPTIONS:
        kind = Kind.CAPTIONS
    if kind is Kind.ANY and kind_of(name) is Kind.HTML:
        kind = Kind.HTML

    def check(start: bytes, info: SourceInfo | None = None) -> None:
        _check(kind, name, api_size_bytes, start, info)

    return check


def check_for_path(path: str) -> Check:
    return check_for(kind_of(path) or Kind.ANY, path)


@lru_cache(maxsize=_REMEMBERED)
def sniff(start: bytes) -> Kind | None:
    """Return the kind of a file that begins with `start`, if it is one in which recordings come."""
    return next((kind for kind in _FORMS if _has_signature(kind, start)), None)


def describe(start: bytes) -> str:
    """Describe a file for messages, with at most a few of its bytes."""
    if answer := error_pages.description(start):
        return answer
    if kind := sniff(start):
        return kind.value
    if not start:
        return "an empty body"
    if texts.begins_as_json(start, is_whole=len(start) < SNIFF_BYTES):
        return "JSON"
    return "text" if _is_text(start) else f"binary data that begins with {start[:12]!r}"


def agrees(kind: Kind, name: str, start: bytes) -> bool:
    """Tell whether the file `name` that begins with `start` can be of `kind`."""
    match kind:
        case Kind.SEGMENT:
            return _is_segment(start) or (kind_of(name) is Kind.IMAGE and _has_signature(Kind.IMAGE, start))
        case Kind.WEBM | Kind.MATROSKA:
            return start.startswith(_EBML)
        case Kind.KEY:
            return len(start) == 16
        case Kind.KEY_256:
            return len(start) == 32
        case Kind.JSON:
            return texts.begins_as_json(start, is_whole=len(start) < SNIFF_BYTES)
        case Kind.CAPTIONS:
            return not start or _is_text(start)
        case Kind.TEXT | Kind.HTML:
            return _is_text(start)
        case Kind.ANY:
            return True
        case _:
            return _has_signature(kind, start)


def _check(kind: Kind, name: str, api_size_bytes: int | None, start: bytes, info: SourceInfo | None) -> None:
    if not start and kind is not Kind.CAPTIONS:
        raise UnexpectedContent(f"{name}: expected {kind.value}, got an empty body")
    as_expected = agrees(kind, name, start)
    if as_expected and kind in _BINARY:
        return
    like = error_pages.likeness(start, info, api_size_bytes, is_media=kind in MEDIA)
    if kind is Kind.HTML and error_pages.is_html(start):
        # only its size, or not being a response, tells it from an error page
        size = info.size_bytes if info and info.size_bytes is not None else len(start)
        is_the_page = info is None or size == api_size_bytes or error_pages.is_large(start, info)
        like = Likeness.NONE if is_the_page else Likeness.PERHAPS
    if like is Likeness.ERROR and info is not None:
        raise ErrorPage(f"{name}: expected {kind.value}, got {describe(start)}")
    if as_expected and kind is Kind.HTML and like is not Likeness.NONE:
        raise UnexpectedContent(f"{name}: an HTML page, which may be an error answer in its place")
    if not as_expected or like is not Likeness.NONE:
        raise UnexpectedContent(f"{name}: expected {kind.value}, got {describe(start)}")


def _has_signature(kind: Kind, start: bytes) -> bool:
    match kind:
        case Kind.MP4:
            box = start[4:8]
            return box in _MP4_BOXES or (box in _MP4_WORDS and start[:1] == b"\0")
        case Kind.WEBM | Kind.MATROSKA:
            found = _DOC_TYPE.search(start[:256]) if start.startswith(_EBML) else None
            is_matroska = found is not None and found[1] == b"matroska"
            return start.startswith(_EBML) and is_matroska == (kind is Kind.MATROSKA)
        case Kind.OGG:
            return start.startswith(b"OggS\0")
        case Kind.WAV:
            return start[:4] in (b"RIFF", b"RF64", b"BW64") and start[8:12] == b"WAVE"
        case Kind.AVI:
            return start[:4] == b"RIFF" and start[8:12] == b"AVI "
        case Kind.FLAC:
            return start.startswith(b"fLaC")
        case Kind.MP3:
            return _MPEG_AUDIO.match(start) is not None
        case Kind.AAC:
            return _ADTS.match(start) is not None
        case Kind.AC3:
            return start.startswith(b"\x0b\x77")
        case Kind.TS:
            return _is_transport_stream(start)
        case Kind.IMAGE:
            begins = next((begins for begins, _ in _IMAGES if start.startswith(begins)), None)
            return begins is not None and (begins != b"RIFF" or start[8:12] == b"WEBP")
        case Kind.ZIP:
            return start.startswith((b"PK\x03\x04", b"PK\x05\x06"))
        case Kind.PLAYLIST:
            return start.removeprefix(_BOM).startswith(b"#EXTM3U")
        case _:
            return False


def _is_segment(start: bytes) -> bool:
    """Tell a segment by its container, not its extension, as players do."""
    if start.startswith(_EBML) or _is_transport_stream(start):
        return True
    others = (Kind.MP4, Kind.AAC, Kind.MP3, Kind.AC3)
    return any(_has_signature(kind, start) for kind in others) or start.removeprefix(_BOM).startswith(
        b"WEBVTT"
    )


def _is_transport_stream(start: bytes) -> bool:
    """Find the sync byte of every visible packet (188 bytes, or 192 with a time code; ISO/IEC 13818-1), at least
    one."""
    return len(start) >= 188 and (not start[::188].strip(b"\x47") or not start[4::192].strip(b"\x47"))


def _is_text(start: bytes) -> bool:
    return texts.decode(start) is not None and sniff(start) not in _BINARY
