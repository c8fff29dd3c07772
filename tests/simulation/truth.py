"""What 100ms really has: assets, their true bytes in each version, and when they can be had. Only the oracle and the
doubles of the API and of the source look here."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from archiver.hms.models import Asset
from archiver.transfer.checksums import crc32c
from tests.simulation.scheduler import DAY, HOUR, START

RETENTION = timedelta(days=15)
HOST = "source.example"


@dataclass(frozen=True)
class Version:
    """The content from `since` on, by path below the asset."""

    since: float
    number: int
    files: Mapping[str, bytes]

    def etag(self, path: str) -> str:
        return f'"v{self.number}-{crc32c(self.files[path]):08x}"'

    @cached_property
    def media(self) -> Mapping[str, bytes]:
        """Return what must be stored byte for byte: playlists may be rewritten."""
        return {path: body for path, body in self.files.items() if not path.endswith(".m3u8")}


@dataclass
class TrueAsset:
    number: int
    id: str
    type: str
    created: float  # seconds, may be before the start
    listed_from: float
    ready_from: float  # before, the API says `processing` and the URL answers 404
    gone_from: float
    versions: list[Version]
    created_at: str | None  # as the API says it
    says_size: int | None
    checksums: bool  # the source tells the CRC32C of what it sends
    fails_at: float | None = None  # from then on the API says `failed`
    _described: dict[str, Asset] = field(default_factory=dict)  # by status

    @property
    def entry(self) -> str:
        return "master.m3u8" if self.is_tree else self.name

    @property
    def name(self) -> str:
        return next(iter(self.versions[0].files))

    @property
    def is_tree(self) -> bool:
        return self.type == "room-vod"

    def version_at(self, seconds: float) -> Version:
        found = self.versions[0]
        for version in self.versions[1:]:
            if version.since <= seconds:
                found = version
        return found

    def is_there(self, seconds: float) -> bool:
        return self.ready_from <= seconds < self.gone_from

    def status(self, seconds: float) -> str:
        if self.fails_at is not None and seconds >= self.fails_at:
            return "failed"
        return "completed" if seconds >= self.ready_from else "processing"

    def listed(self, seconds: float) -> bool:
        return self.listed_from <= seconds < self.gone_from

    def described(self, seconds: float) -> Asset:
        """As the API tells it."""
        status = self.status(seconds)
        if status not in self._described:
            self._described[status] = Asset.parse(
                {
                    "id": self.id,
                    "job_id": "job",
                    "room_id": f"room-{self.number % 3}",
                    "session_id": "session",
                    "type": self.type,
                    "status": status,
                    "path": f"s3://hms/beam/{self.number}/{self.entry}",
                    "size": self.says_size,
                    "created_at": self.created_at,
                }
            )
        return self._described[status]


def make_assets(rng: random.Random, count: int, until: float) -> list[TrueAsset]:
    """A quarter of them created up to twelve days before the start, the others until `until`."""
    return [
        _asset(rng, number, rng.uniform(-12 * DAY, 0.0) if number % 4 == 0 else rng.uniform(0.0, until))
        for number in range(count)
    ]


def _asset(rng: random.Random, number: int, created: float) -> TrueAsset:
    kind = rng.choice(
        ["room-composite", "room-composite", "chat", "transcript", "track", "room-vod", "room-vod"]
    )
    versions = [Version(-100 * DAY, 1, _files(rng, kind, 1))]
    ready = max(created, 0.0) + rng.choice([0.0, 0.0, 0.0, rng.uniform(0, 6 * HOUR)])
    if rng.random() < (0.5 if kind == "room-vod" else 0.2):
        later = rng.choice([2 * HOUR, 8 * HOUR, 3 * DAY])
        length = len(next(iter(versions[0].files.values()))) if rng.random() < 0.7 else None
        versions.append(Version(ready + rng.uniform(0, later), 2, _files(rng, kind, 2, length)))
    listed = max(created, 0.0)
    odd_date = rng.choice([None, "1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "0001-01-01T00:00:00Z"])
    reported = (START + timedelta(seconds=created)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"
    size = sum(map(len, versions[0].files.values()))
    return TrueAsset(
        number=number,
        id=f"6400c0d3e1b2a3c4d5e6{number:04x}",
        type=kind,
        created=created,
        listed_from=listed,
        ready_from=ready,
        gone_from=created + RETENTION.total_seconds() + rng.uniform(0, 6 * HOUR),
        versions=versions,
        created_at=odd_date if rng.random() < 0.06 else reported,
        says_size=None if len(versions) > 1 or rng.random() < 0.2 else size,
        checksums=rng.random() < 0.6,
        fails_at=ready + rng.uniform(0, 5 * DAY) if rng.random() < 0.04 else None,
    )


def _files(rng: random.Random, kind: str, version: int, length: int | None = None) -> Mapping[str, bytes]:
    """`length`: of a recording, when it is to be that of another version."""
    if kind == "room-vod":
        return _tree(rng, rng.randrange(2, 7), version)
    if kind == "chat":
        rows = "\n".join(f"{n},user{n},hello {rng.random()}" for n in range(rng.randrange(3, 40)))
        return {"chat.csv": f"id,name,message\n{rows}\n".encode()}
    if kind == "transcript":
        return {"talk.txt": " ".join(f"word{rng.randrange(10**6)}" for _ in range(80)).encode()}
    if kind == "track":
        return {"track.mp4": _mp4(rng.randbytes(rng.randrange(100, 9_000)))}
    media_bytes = rng.choice([900, 5_000, 14_000, 22_000])
    return {"Rec.mp4": _mp4(rng.randbytes(media_bytes if length is None else length - len(_mp4(b""))))}


def _box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _mp4(media: bytes) -> bytes:
    moov = _box(b"moov", _box(b"mvhd", bytes(100)) + _box(b"trak", bytes(64)))
    return _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + moov + _box(b"mdat", media)


def _tree(rng: random.Random, segments: int, version: int) -> Mapping[str, bytes]:
    """One variant. Both versions have segments of the same names."""
    files: dict[str, bytes] = {}
    lines = []
    for number in range(segments):
        files[f"v0/seg{number}.ts"] = b"".join(
            b"G" + bytes([version]) + rng.randbytes(186) for _ in range(rng.randrange(1, 8))
        )
        lines.append(f"#EXTINF:2.0,\nseg{number}.ts")
    body = "\n".join(lines)
    media = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PROGRAM:{version}\n{body}\n#EXT-X-ENDLIST\n"
    files["v0/stream.m3u8"] = media.encode()
    files["master.m3u8"] = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv0/stream.m3u8\n"
    return files
