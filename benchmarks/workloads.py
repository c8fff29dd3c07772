"""The jobs: what there is to copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from benchmarks.content import GIB, KIB, MIB, Body, media, zip_of

LAYERS = 4


class Form(StrEnum):
    LARGE = "large"  # files of many parts
    MANY = "many"  # small files, a playlist beside them or not
    ZIP = "zip"


@dataclass(frozen=True, slots=True)
class Job:
    """`files`: by path, what the source serves; `arriving`: what must be at the sink in the end."""

    name: str
    title: str
    form: Form
    files: dict[str, Body] = field(repr=False)
    arriving: dict[str, Body] = field(repr=False)
    connections: int

    @property
    def size_bytes(self) -> int:
        return sum(body.size_bytes for body in self.arriving.values())


def _large(name: str, title: str, count: int, size_bytes: int) -> Job:
    files = {f"{number}.mp4": media(f"{name}{number}", size_bytes) for number in range(count)}
    return Job(name, title, Form.LARGE, files, files, connections=16)


def _tree(segments: int, size_bytes: int) -> dict[str, Body]:
    files: dict[str, Body] = {}
    master = ["#EXTM3U", "#EXT-X-VERSION:3"]
    for layer in range(LAYERS):
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2", "#EXT-X-PLAYLIST-TYPE:VOD"]
        for number in range(segments):
            segment = f"{number:05d}.ts"
            lines += ["#EXTINF:2.0,", segment]
            files[f"layer{layer}/{segment}"] = media(f"{layer}/{segment}", size_bytes)
        files[f"layer{layer}/index.m3u8"] = Body("\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode())
        master += [f"#EXT-X-STREAM-INF:BANDWIDTH={(layer + 1) * 1_000_000}", f"layer{layer}/index.m3u8"]
    files["master.m3u8"] = Body("\n".join([*master, ""]).encode())
    return files


def a(scale: float, _: memoryview) -> Job:
    return _large("A", "one file of 4 GiB", 1, int(4 * GIB * scale))


def a1(scale: float, _: memoryview) -> Job:
    return _large("A1", "one file of 1 GiB", 1, int(GIB * scale))


def b(scale: float, _: memoryview) -> Job:
    return _large("B", "8 files of 512 MiB", 8, int(512 * MIB * scale))


def c(scale: float, _: memoryview) -> Job:
    files = _tree(max(1, int(1500 * scale)), 250 * KIB)
    return Job("C", "an HLS tree of 4 × 1,500 segments of 250 KiB", Form.MANY, files, files, connections=32)


def d(scale: float, _: memoryview) -> Job:
    files = {f"{number:05d}.ts": media(str(number), 4 * KIB) for number in range(max(1, int(2000 * scale)))}
    return Job("D", "2,000 files of 4 KiB", Form.MANY, files, files, connections=32)


def e(scale: float, pattern: memoryview) -> Job:
    files = _tree(max(1, int(1200 * scale)), 250 * KIB)
    zipped = {"vod.zip": zip_of(files, pattern)}
    return Job("E", "a zip of 1.2 GB", Form.ZIP, zipped, files, connections=16)


def a8(scale: float, _: memoryview) -> Job:
    return _large("A8", "one file of 8 GiB", 1, int(8 * GIB * scale))


def c_large(scale: float, _: memoryview) -> Job:
    """For memory: buffers of all kinds are full, and too many to be used again."""
    files = _tree(max(1, int(384 * scale)), MIB)
    return Job("C1M", "an HLS tree of 1,536 segments of 1 MiB", Form.MANY, files, files, connections=32)


def c_long(scale: float, _: memoryview) -> Job:
    """12 hours in segments of 2 s, in four layers: for memory, so the segments are small."""
    files = _tree(max(1, int(21_600 * scale)), KIB)
    return Job("C12", "an HLS tree of 86,400 segments", Form.MANY, files, files, connections=32)


def e_large(scale: float, pattern: memoryview) -> Job:
    """For memory: members of several parts each, so that what is read ahead and what is sent fill it together."""
    files = {"master.m3u8": Body(b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlayer0/index.m3u8\n")}
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:60", "#EXT-X-PLAYLIST-TYPE:VOD"]
    for number in range(max(1, int(40 * scale))):
        lines += ["#EXTINF:60.0,", f"{number:05d}.ts"]
        files[f"layer0/{number:05d}.ts"] = media(f"large/{number}", 25 * MIB)
    files["layer0/index.m3u8"] = Body("\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode())
    zipped = {"vod.zip": zip_of(files, pattern)}
    return Job("E25", "a zip of segments of 25 MiB", Form.ZIP, zipped, files, connections=16)


JOBS: dict[str, Callable[[float, memoryview], Job]] = {
    "A": a,
    "A1": a1,
    "A8": a8,
    "B": b,
    "C": c,
    "C12": c_long,
    "C1M": c_large,
    "D": d,
    "E": e,
    "E25": e_large,
}
