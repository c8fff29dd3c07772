"""The API's responses as models. Unknown fields and types are kept, never refused.

An asset keeps the JSON it was made from in `raw`, for the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, field_validator

_LARGEST_SIZE = 2**53  # beyond it JSON numbers are no longer exact, and no recording is that large

_PARAMETERS = re.compile(r"\?[^?=]*=.*", re.DOTALL)
_URL = re.compile(r"https?://", re.IGNORECASE)
_USER_INFO = re.compile(r"\A((?:[a-z][a-z0-9+.-]*:)?//)[^/?#@]*@", re.IGNORECASE)
_LOCATION_FIELDS = ("path", "location")  # of a thumbnail that is an object

_RFC_3339 = re.compile(  # section 5.6; a space for `T` is in its note, as is lower case
    r"(?a:(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d):([0-5]\d|60)(?:\.(\d+))?"
    r"(?:[Zz]|([+-](?:[01]\d|2[0-3]):[0-5]\d)))"
)


class AssetStatus(StrEnum):
    """The statuses the documentation names; any other string stays a plain `str`."""

    COMPLETED = "completed"
    FAILED = "failed"


class AssetType(StrEnum):
    """The types the documentation names; any other string stays a plain `str`."""

    ROOM_COMPOSITE = "room-composite"
    ROOM_COMPOSITE_LEGACY = "room-composite-legacy"
    ROOM_VOD = "room-vod"
    CHAT = "chat"
    TRANSCRIPT = "transcript"
    SUMMARY = "summary"
    TRACK = "track"
    STREAM = "stream"


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Asset(_Answer):
    """One recording asset. `size_bytes` and `duration_seconds` are what the API claims, None when it does not. `path`
    and the storage paths of `thumbnails` have no query of a pre-signed URL; `raw` has them unchanged.

    `type` and `status` are plain strings, since new ones must be expected; compare with the enums above.
    """

    id: str = Field(min_length=1)
    type: str = ""
    status: str = ""
    job_id: str | None = None
    room_id: str | None = None
    session_id: str | None = None
    path: str | None = None
    size_bytes: int | None = Field(default=None, alias="size")
    duration_seconds: float | None = Field(default=None, alias="duration")
    created_at: AwareDatetime | None = None
    # documented as storage paths; URLs (which are secrets) or objects must be expected
    thumbnails: tuple[Any, ...] = Field(default=(), repr=False)
    metadata: Mapping[str, Any] = Field(default_factory=dict)
    raw: Mapping[str, Any] = Field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Asset:
        """Parse one JSON object, kept unchanged in `raw`. An invalid value becomes None: one bad field must not hide an
        asset. Raises pydantic.ValidationError when there is no usable `id`."""
        return cls.model_validate({**raw, "raw": dict(raw)})

    @field_validator("type", "status", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return value if isinstance(value, str) else ""

    @field_validator("job_id", "room_id", "session_id", mode="before")
    @classmethod
    def _optional_text(cls, value: object) -> object:
        return value if isinstance(value, str) and value else None

    @field_validator("path", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return (storage_path(value) or None) if isinstance(value, str) else None

    @field_validator("size_bytes", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        number = _number(value)
        return int(number) if number is not None and 0 <= number <= _LARGEST_SIZE else None

    @field_validator("duration_seconds", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        return _number(value)

    @field_validator("created_at", mode="before")
    @classmethod
    def _created_at(cls, value: object) -> object:
        return parse_time(value)

    @field_validator("thumbnails", mode="before")
    @classmethod
    def _thumbnails(cls, value: object) -> object:
        return tuple(_thumbnail(each) for each in value) if isinstance(value, list | tuple) else ()

    @field_validator("metadata", mode="before")
    @classmethod
    def _metadata(cls, value: object) -> object:
        return value if isinstance(value, Mapping) else {}


class SignedUrl(_Answer):
    """The response of `presigned-url`. `url` is a secret; it may expire before `expiry_seconds`."""

    id: str = ""
    path: str | None = None
    url: SecretStr
    expiry_seconds: int | None = Field(default=None, alias="expiry")

    @field_validator("id", mode="before")
    @classmethod
    def _id(cls, value: object) -> object:
        return value if isinstance(value, str) else ""

    @field_validator("expiry_seconds", mode="before")
    @classmethod
    def _expiry(cls, value: object) -> object:
        number = _number(value)
        return int(number) if number is not None else None

    @field_validator("path", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return (storage_path(value) or None) if isinstance(value, str) else None


class Page(_Answer):
    """One page of the listing. `next_start`: None on the last page, but it may also lead to nothing. `invalid_rows`:
    rows without a usable id; they cannot be named, so they are counted and shown."""

    assets: tuple[Asset, ...]
    next_start: str | None
    invalid_rows: int = 0


def storage_path(text: str) -> str:
    """Strip the query of a pre-signed URL, user name and password, which are credentials. `?` and `#` that no parameter
    follows are part of the path, except in an http URL."""
    if _URL.match(text):
        text = re.split("[?#]", text, maxsplit=1)[0]
    return _USER_INFO.sub(r"\1", _PARAMETERS.sub("", text))


def _thumbnail(given: object) -> object:
    """Strip storage paths, but keep the query of a URL: it is fetched with it."""
    if isinstance(given, str):
        return given if _URL.match(given) else storage_path(given)
    if not isinstance(given, Mapping):
        return given
    return {
        name: _thumbnail(value) if name in _LOCATION_FIELDS and isinstance(value, str) else value
        for name, value in given.items()
    }


def parse_time(value: object) -> datetime | None:
    """Parse a date and time (RFC 3339, section 5.6) as aware UTC, truncated to microseconds; None for anything else. A
    leap second becomes the second after it, since `datetime` has none."""
    found = _RFC_3339.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    date, minute, second, fraction, offset = found.groups()
    return _from_parts(date, minute, second, (fraction or "")[:6], offset or "+00:00")


@lru_cache(maxsize=1024)  # every look at the account parses the same few times again
def _from_parts(date: str, minute: str, second: str, fraction: str, offset: str) -> datetime | None:
    is_leap = second == "60"
    try:
        parsed = datetime.fromisoformat(f"{date}T{minute}:{'59' if is_leap else second}{offset}")
        return parsed.astimezone(UTC) + timedelta(
            seconds=1 if is_leap else 0, microseconds=int(fraction.ljust(6, "0"))
        )
    except (ValueError, OverflowError):  # the 30th of February; the year 0; the year 1 east of Greenwich
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number == number and abs(number) != float("inf") else None
