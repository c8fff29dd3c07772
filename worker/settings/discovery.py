"""Which assets are archived, how often the API is asked for new ones, and until when 100ms keeps them."""

from __future__ import annotations

import re
from datetime import timedelta

from pydantic import Field, field_validator

from worker.settings.group import CommaSeparated, Filter, SettingsGroup

_PREFIX_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s?#@]+", re.IGNORECASE)


class DiscoverySettings(SettingsGroup):
    types: Filter = Field(
        default=None,
        description="Only assets of these types, separated by commas, such as room-composite,room-vod; the others "
        "end as `skipped`. Default: all types, including those that 100ms adds later.",
    )
    rooms: Filter = Field(
        default=None,
        description="Only assets of these room ids, separated by commas; the others end as `skipped`. Default: all "
        "rooms.",
    )
    own_paths: CommaSeparated = Field(
        default=(),
        description="Path prefixes of your own bucket, separated by commas, such as s3://my-bucket/hms, if 100ms "
        "uploads there directly: such assets end as `external` and are not copied. Default: none.",
    )
    keep_sessions: bool = Field(
        default=True,
        description="Whether who was in a session (names and user ids of its peers, the room's name) is kept beside "
        "its recordings, in sessions/. It finds the recordings of a user: `archiver list --user`. false where "
        "personal data must not be kept. Default true.",
    )
    catalogue: bool = Field(
        default=True,
        description="Whether the monthly tables of what is archived, catalogue/<yyyy>-<mm>.csv.gz, are renewed each "
        "night. A night costs a LIST for each 1,000 manifests and destination, and a HEAD and a GET for each manifest "
        "of a month that changed. false where a store lets nothing be overwritten. Default true.",
    )
    sweep_seconds: int = Field(
        default=300,
        ge=1,
        description="Seconds between two sweeps (listing the API's assets). Default 300: a new asset waits 5 minutes "
        "of its 15 days, and 10,000 assets cost 100 requests per sweep.",
    )
    retention_days: float = Field(
        default=15,
        gt=0,
        description="Days from an asset's creation until 100ms deletes it: the deadline of every copy. Default 15: "
        "how long 100ms keeps assets on its own storage.",
    )
    at_risk_days: float = Field(
        default=3,
        gt=0,
        description="Days before its deadline from which an unsaved asset counts as at risk and is archived first, "
        "and from which one that 100ms has not finished is stored as it is, with doubts. Default 3: a weekend.",
    )

    @property
    def sweep_every(self) -> timedelta:
        return timedelta(seconds=self.sweep_seconds)

    @property
    def retention(self) -> timedelta:
        return timedelta(days=self.retention_days)

    @property
    def at_risk(self) -> timedelta:
        return timedelta(days=self.at_risk_days)

    @field_validator("own_paths", mode="after")
    @classmethod
    def _own_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _PREFIX_URL.fullmatch(text):
                raise ValueError(
                    "each is a storage path with its scheme and no query, such as s3://my-bucket/hms"
                )
        return value
