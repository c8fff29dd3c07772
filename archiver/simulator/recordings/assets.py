"""One asset: its row in the listing, and its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from archiver.simulator.recordings.content import Content

HMS_BUCKET = "simulated-hms-recordings"
HMS_PREFIX = "ap-south-1/5f7c1d2e"
OWN_PREFIX = "recordings"


class Delivery(StrEnum):
    """What `presigned-url` returns, and what the children of a playlist need."""

    SIGNED = "signed"  # one file at the storage; files beside it get 403
    CDN_RELATIVE = "cdn-relative"  # the folder is readable without credentials
    CDN_TOKEN = "cdn-token"  # noqa: S105 (the query of the master is needed on every child)
    CDN_COOKIES = "cdn-cookies"  # the master sets cookies; the children need them


class Form(StrEnum):
    FILE = "file"
    HLS = "hls"
    ZIP = "zip"
    NONE = "none"  # it failed: there is no file


@dataclass(frozen=True)
class Identity:
    """Where and when an asset was made; ids derive from `name`."""

    name: str
    room: str
    session: str
    created_seconds: float  # since 1970

    @property
    def asset_id(self) -> str:
        return hexadecimal("asset", self.room, self.session, self.name)

    @property
    def room_id(self) -> str:
        return hexadecimal("room", self.room)

    @property
    def session_id(self) -> str:
        return hexadecimal("session", self.session)

    @property
    def created_at(self) -> str:
        """With nanoseconds, as the API writes it."""
        moment = datetime.fromtimestamp(int(self.created_seconds), UTC)
        nanoseconds = int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % 1_000_000_000
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z"

    @property
    def date(self) -> str:
        return f"{datetime.fromtimestamp(int(self.created_seconds), UTC):%Y%m%d}"

    @property
    def epoch(self) -> int:
        return int(self.created_seconds)


@dataclass(frozen=True)
class Thumbnail:
    """`name` is a key of the asset's `objects`."""

    name: str
    offset_seconds: int
    width: int
    height: int


@dataclass(frozen=True)
class Asset:
    """`objects`: all files by their name below `folder`; `main`: the one that `presigned-url` returns. `whole`: the
    files of a perfect archive, by path below the folder of `main`, or inside the zip."""

    kind: str
    identity: Identity
    row: Mapping[str, Any]
    form: Form
    folder: str
    objects: Mapping[str, Content] = field(repr=False)
    main: str | None
    whole: Mapping[str, Content] = field(repr=False)
    expected_state: str = "archived"
    delivery: Delivery = Delivery.SIGNED
    thumbnails: tuple[Thumbnail, ...] = ()
    bucket: str = HMS_BUCKET
    redirect: str | None = None  # `here`, `elsewhere` (another port), or a URL

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def main_key(self) -> str | None:
        return None if self.main is None else f"{self.folder}/{self.main}"

    @property
    def main_folder(self) -> str:
        """The key of the folder of `main`, with a trailing slash."""
        return f"{PurePosixPath(self.main_key or self.folder).parent}/"

    @property
    def has_retention(self) -> bool:
        return self.bucket == HMS_BUCKET


def storage_path(bucket: str, key: str) -> str:
    return f"s3://{bucket}/{key}"


def prefix_of(bucket: str) -> str:
    return HMS_PREFIX if bucket == HMS_BUCKET else OWN_PREFIX


def hexadecimal(*parts: object) -> str:
    """Return 24 hexadecimal digits, like 100ms's ids."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:24]


def row_of(identity: Identity, **fields: Any) -> dict[str, Any]:
    """Return a row of the listing, with the fields of all types and an undocumented one."""
    row: dict[str, Any] = {
        "id": identity.asset_id,
        "job_id": hexadecimal("job", identity.room, identity.session, identity.name),
        "room_id": identity.room_id,
        "session_id": identity.session_id,
        "type": "",
        "status": "completed",
        "path": "",
        "size": 0,
        "duration": 0,
        "created_at": identity.created_at,
        "thumbnails": None,
        "metadata": {},
        "simulated": True,
    }
    row.update(fields)
    return row
