"""Containers as recorders write them, made once per test process, and taken apart without the code that is tested."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from tests.core.contents.media import ffmpeg

_PICTURE = ["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=10:duration=3"]
_SOUND = ["-f", "lavfi", "-i", "sine=frequency=440:duration=3"]
_H264 = [*_PICTURE, *_SOUND, "-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-c:a", "aac"]
_VP8 = [
    *_PICTURE,
    *_SOUND,
    "-c:v",
    "libvpx",
    "-deadline",
    "realtime",
    "-cpu-used",
    "8",
    "-g",
    "10",
    "-c:a",
    "libopus",
]

_MADE_BY = {
    "moov-at-end.mp4": _H264,
    "faststart.mp4": [*_H264, "-movflags", "faststart"],
    "fragmented.mp4": [*_H264, "-movflags", "frag_keyframe+empty_moov"],
    "every-frame.mp4": [*_H264, "-movflags", "frag_every_frame+empty_moov+default_base_moof"],
    "cmaf.mp4": [*_H264, "-movflags", "cmaf"],
    "a.mov": _H264,
    "a.m4a": [*_SOUND, "-c:a", "aac"],
    "a.webm": _VP8,
    "live.webm": [*_VP8, "-live", "1"],
    "a.mkv": _H264,
    "a.wav": _SOUND,
    "rf64.wav": [*_SOUND, "-rf64", "always"],
    "vorbis.ogg": [*_SOUND, "-c:a", "libvorbis"],
    "a.opus": [*_SOUND, "-c:a", "libopus"],
    "a.flac": _SOUND,
    "a.mp3": [*_SOUND, "-c:a", "libmp3lame"],
    "a.aac": [*_SOUND, "-c:a", "aac", "-f", "adts"],
    "a.avi": [*_PICTURE, "-c:v", "mpeg4"],
    "a.ts": _H264,
}


@cache
def files() -> Mapping[str, bytes]:
    """By name, whose extension says the container."""
    made = {}
    with TemporaryDirectory() as folder:
        for name, arguments in _MADE_BY.items():
            ffmpeg(*arguments, name, folder=folder)
            made[name] = (Path(folder) / name).read_bytes()
    made["no-sizes.webm"] = _without_sizes(made["a.webm"])
    made["large-size.mp4"] = _with_large_mdat(made["faststart.mp4"])
    return MappingProxyType(made)


def boxes(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and bytes of each top-level box; none of them may have a 64-bit size, or none."""
    at = 0
    while at < len(body):
        size, kind = struct.unpack_from(">I4s", body, at)
        yield kind, body[at : at + size]
        at += size


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def large_box(kind: bytes, content: bytes) -> bytes:
    """With a 64-bit size."""
    return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content


def elements(body: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """ID, content and bytes of each EBML element."""
    at = 0
    while at < len(body):
        name_length = 9 - body[at].bit_length()
        name = body[at : at + name_length]
        size_at = at + name_length
        size_length = 9 - body[size_at].bit_length()
        content_at = size_at + size_length
        size = int.from_bytes(body[size_at:content_at], "big") & ((1 << 7 * size_length) - 1)
        yield name, body[content_at : content_at + size], body[at : content_at + size]
        at = content_at + size


SEGMENT, CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
INFO, TRACKS = b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b"
NO_SIZE = b"\x01" + b"\xff" * 7


def _without_sizes(webm: bytes) -> bytes:
    """As MediaRecorder and GStreamer write it live: segment and clusters of unknown size, no index."""
    (_, _, head), (_, segment, _) = elements(webm)
    found = list(elements(segment))
    described = b"".join(whole for name, _, whole in found if name in (INFO, TRACKS))
    clusters = b"".join(name + NO_SIZE + content for name, content, _ in found if name == CLUSTER)
    return head + SEGMENT + NO_SIZE + described + clusters


def _with_large_mdat(mp4: bytes) -> bytes:
    return b"".join(large_box(kind, whole[8:]) if kind == b"mdat" else whole for kind, whole in boxes(mp4))
