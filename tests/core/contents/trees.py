"""Playlists written in a line, and the walk of trees that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archiver.core.contents.base import Notes
from archiver.core.contents.hls.tree import HlsContents
from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Answer, Copy, Origin, copy, signed

TS = b"G" + bytes(187)
ENDED = "#EXT-X-ENDLIST\n"


def numbered(number: int) -> bytes:
    return b"G" + bytes([number]) * 187


def master(*lines: str) -> bytes:
    return "\n".join(["#EXTM3U", *lines, ""]).encode()


def variants(*uris: str) -> bytes:
    return master(*(f"#EXT-X-STREAM-INF:BANDWIDTH=1\n{uri}" for uri in uris))


def media(*lines: str, end: str = ENDED) -> bytes:
    return "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:2", *lines, end]).encode()


def segments(*uris: str, end: str = ENDED) -> bytes:
    return media(*(f"#EXTINF:2.0,\n{uri}" for uri in uris), end=end)


class Naps:
    """Sleeping without time passing; `then` runs after each."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.taken: list[float] = []
        self._then = then

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        self._then()


def open_tree(
    client: HttpClient, origin: Origin, path: str = "/vod/master.m3u8", **options: object
) -> HlsContents:
    return HlsContents(client, signed(origin.url + path), **{"sleep": Naps(), **options})  # type: ignore[arg-type]


def copy_tree(client: HttpClient, origin: Origin, path: str = "/vod/master.m3u8") -> Copy:
    """Of a tree that nothing is wrong with."""
    return copy(open_tree(client, origin, path))


@dataclass
class Walked:
    """What a walk gave, and what it told."""

    copy: Copy
    notes: Notes

    @property
    def paths(self) -> set[str]:
        return set(self.copy.files)

    @property
    def doubts(self) -> list[str]:
        return [str(doubt) for doubt in self.notes.doubts]

    @property
    def missing(self) -> set[str | None]:
        return {doubt.path for doubt in self.notes.doubts if doubt.missing}

    @property
    def unready(self) -> set[str | None]:
        return {doubt.path for doubt in self.notes.doubts if doubt.unready}


def walk(client: HttpClient, origin: Origin, path: str = "/vod/master.m3u8", **options: object) -> Walked:
    """Copy what can be had of a tree, as the archiver does."""
    contents = open_tree(client, origin, path, **options)
    return Walked(copy(contents, go_on=True), contents.notes)


# -- what a source gives, and a tree of everything ------------------------------------------------------------
PAGE = b"<!DOCTYPE html><html><body>Sorry</body></html>"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
BUSY = Answer(503, b"", {"Retry-After": "3600"})  # longer than a walk waits
RENDITIONS = master(
    '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="audio.m3u8"',
    '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="s",URI="subs.m3u8"',
    '#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a",SUBTITLES="s"\nlow.m3u8',
    '#EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO="a",SUBTITLES="s"\nhigh.m3u8',
    '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="frames.m3u8"',
)


def whole() -> dict[str, bytes]:
    """A tree of each kind of playlist, with one segment each."""
    files = {
        "/vod/master.m3u8": RENDITIONS,
        "/vod/subs.m3u8": segments("0.vtt"),
        "/vod/0.vtt": b"WEBVTT\n",
    }
    for name in ("audio", "low", "high", "frames"):
        files |= {f"/vod/{name}.m3u8": segments(f"{name}.ts"), f"/vod/{name}.ts": TS}
    return files
