"""HLS trees: recorded ones from `media/`, and synthetic ones of any size."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from archiver.simulator.recordings.content import Content, Held, Synthetic

MEDIA = Path(__file__).parents[1] / "media"
MASTER = "master.m3u8"
_SEGMENT = re.compile(r"stream_(\d+)/segment_(\d{5,})\.ts")
_STREAM = re.compile(r"stream_(\d+)/stream\.m3u8")


@cache
def medium(name: str) -> Held:
    """Return a file of `media/`."""
    return Held((MEDIA / name).read_bytes())


def recorded_tree(name: str) -> dict[str, Content]:
    """Return `vod-ts` or `vod-fmp4` by path."""
    folder = MEDIA / name
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): medium(path.relative_to(MEDIA).as_posix()) for path in paths}


class SyntheticTree(Mapping[str, Content]):
    """`layers` × `segments` transport-stream segments of `segment_bytes` (rounded down to 188), generated while
    read."""

    def __init__(self, seed: str, layers: int, segments: int, segment_bytes: int) -> None:
        self._seed = seed
        self._layers = layers
        self._segments = segments
        self._segment_bytes = max(188, segment_bytes - segment_bytes % 188)
        self._playlist: Held | None = None

    def __len__(self) -> int:
        return 1 + self._layers * (1 + self._segments)

    def __iter__(self) -> Iterator[str]:
        for layer in range(self._layers):
            for number in range(self._segments):
                yield f"stream_{layer}/segment_{number:05}.ts"
            yield f"stream_{layer}/stream.m3u8"
        yield MASTER

    def __getitem__(self, name: str) -> Content:
        segment = _SEGMENT.fullmatch(name)
        if segment and int(segment[1]) < self._layers and int(segment[2]) < self._segments:
            return Synthetic(self._segment_bytes, f"{self._seed}/{name}", transport_stream=True)
        stream = _STREAM.fullmatch(name)
        if stream and int(stream[1]) < self._layers:
            return self._stream()
        if name == MASTER:
            return self._master()
        raise KeyError(name)

    @property
    def seconds(self) -> int:
        """How long its playlists say that it is."""
        return 2 * self._segments

    @property
    def total_bytes(self) -> int:
        return (
            self._layers * (self._segments * self._segment_bytes + self._stream().size_bytes)
            + self._master().size_bytes
        )

    def _stream(self) -> Held:
        # Its names are relative, so all layers share one.
        if self._playlist is None:
            head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD\n"
            body = "".join(f"#EXTINF:2.000000,\nsegment_{number:05}.ts\n" for number in range(self._segments))
            self._playlist = Held((head + body + "#EXT-X-ENDLIST\n").encode())
        return self._playlist

    def _master(self) -> Held:
        lines = ["#EXTM3U", "#EXT-X-VERSION:3"]
        for layer in range(self._layers):
            lines.append(
                f"#EXT-X-STREAM-INF:BANDWIDTH={self._segment_bytes * 4},RESOLUTION={1280 >> layer}x{720 >> layer}"
            )
            lines.append(f"stream_{layer}/stream.m3u8")
        return Held(("\n".join(lines) + "\n").encode())
