"""References of a playlist, and replacing them in its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

Span = tuple[int, int]
"""First byte, and the byte after the last."""


class Role(Enum):
    """What a reference points to, which decides how it is handled."""

    VARIANT = "variant playlist"
    RENDITION = "rendition playlist"
    SEGMENT = "segment"
    INIT = "init segment"
    KEY = "key"
    DATA = "session data"
    PART = "partial segment"  # of low-latency HLS: copied if present
    LINK = "link"  # rewritten to stay in the copy, never fetched


@dataclass(
    slots=True
)  # not frozen: one for each of 86,400 segments, and to freeze it costs more than to find it
class Reference:
    """One URI. `span`: its bytes in the playlist; `uri`: its text with variables substituted, as ASCII (other bytes are
    percent-encoded); `verbatim`: whether the two are equal.

    `key_bytes` is the length of a key in the format that HLS itself defines: 32 for AES-256, else 16; None for other
    key formats. `media_type` is the TYPE of an EXT-X-MEDIA (AUDIO, VIDEO, SUBTITLES,
    CLOSED-CAPTIONS), I-FRAME or IMAGE for the playlists of those tags, else empty. `ranged`: only a byte range of the
    file is meant. `from_query` names the query parameters whose values were taken from the playlist's own URL
    (QUERYPARAM): they are no part of the file's identity."""

    span: Span
    uri: str = field(repr=False)  # its query may be a credential
    role: Role
    verbatim: bool
    gap: bool = False  # the segment is meant to be missing
    encrypted: bool = False  # the whole file is ciphertext: its first bytes say nothing
    key_bytes: int | None = None
    media_type: str = ""
    ranged: bool = False
    from_query: tuple[str, ...] = ()


def rewrite(data: bytes, replacements: Mapping[Span, bytes]) -> bytes:
    """Replace each span of `data`; without spans, return `data` itself."""
    if not replacements:
        return data
    pieces, at = [], 0
    for (start, end), new in sorted(replacements.items()):
        if start < at:
            raise ValueError(f"spans overlap at byte {start}")
        pieces += [data[at:start], new]
        at = end
    return b"".join([*pieces, data[at:]])
