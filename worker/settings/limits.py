"""Politeness: bandwidth, API requests and connections that all workers together may use."""

from __future__ import annotations

from typing import Self
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from archiver.limits.schedule import BadSchedule, RateSchedule, parse_schedule
from worker.settings.group import PREFIX, SettingsGroup


class LimitSettings(SettingsGroup):
    bandwidth: str = Field(
        default="unlimited",
        description="Bytes per second that all workers on one Redis together read from 100ms to copy; each destination "
        "is sent as many. One rate (50MB/s, 200Mbit/s), or rates by hours: 08:00-20:00=50MB/s,else=unlimited. Assets "
        "with less than ARCHIVER_AT_RISK_DAYS left ignore it. Default: unlimited.",
    )
    bandwidth_zone: str = Field(
        default="UTC",
        description="The time zone of the hours in ARCHIVER_BANDWIDTH and ARCHIVER_SCRUB_BANDWIDTH, such as "
        "Europe/Berlin. Default UTC.",
    )
    scrub_bandwidth: str = Field(
        default="unlimited",
        description="Bytes per second that the scrub reads back from all destinations together, apart from "
        "ARCHIVER_BANDWIDTH and written like it. While assets at risk are copied the scrub waits, whatever this is. "
        "Default: unlimited.",
    )
    api_rate: float | None = Field(
        default=None,
        ge=0.1,
        le=10_000,
        description="Requests per second that all workers on one Redis together send to the 100ms API. A sweep takes "
        "one for every 100 assets, a copy about two for each asset. Default: no limit; when the API itself asks for a "
        "pause (429, Retry-After), it gets one.",
    )
    destination_connections: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="The most requests at once to each destination for one asset; times ARCHIVER_WORKER_CONCURRENCY "
        "for one worker. Default: as ARCHIVER_CONNECTIONS.",
    )

    drill_bandwidth: str = Field(
        default="unlimited",
        description="Bytes per second that a drill reads from all destinations together, written like "
        "ARCHIVER_BANDWIDTH. The minutes per GiB that a drill reports are those under the limit. "
        "Default: unlimited.",
    )
    replicate_bandwidth: str = Field(
        default="unlimited",
        description="Bytes per second read from one destination to fill another, by all processes on one Redis "
        "together; written as ARCHIVER_BANDWIDTH. What a store copies by itself does not count. Default: unlimited.",
    )

    @property
    def bandwidth_schedule(self) -> RateSchedule:
        return parse_schedule(self.bandwidth, ZoneInfo(self.bandwidth_zone))

    @property
    def drill_schedule(self) -> RateSchedule:
        return parse_schedule(self.drill_bandwidth, ZoneInfo(self.bandwidth_zone))

    @property
    def replicate_schedule(self) -> RateSchedule:
        return parse_schedule(self.replicate_bandwidth, ZoneInfo(self.bandwidth_zone))

    @property
    def scrub_schedule(self) -> RateSchedule:
        return parse_schedule(self.scrub_bandwidth, ZoneInfo(self.bandwidth_zone))

    @field_validator("bandwidth_zone", mode="after")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, OSError, ValueError):  # unknown, a folder of zones, no name at all
            raise ValueError(f"{value!r} is no time zone; expected a name such as Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _schedules(self) -> Self:
        wrong = []
        for name, text in (
            ("BANDWIDTH", self.bandwidth),
            ("SCRUB_BANDWIDTH", self.scrub_bandwidth),
            ("DRILL_BANDWIDTH", self.drill_bandwidth),
            ("REPLICATE_BANDWIDTH", self.replicate_bandwidth),
        ):
            try:
                parse_schedule(text, ZoneInfo("UTC"))
            except BadSchedule as error:
                wrong.append(f"{PREFIX}{name}: {error}")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self
