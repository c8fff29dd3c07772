"""Dispatch, lease and retries."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from archiver.ledger.models import MAX_LEASE
from archiver.retry_policy import ATTEMPT
from worker.settings.group import SettingsGroup


class SchedulingSettings(SettingsGroup):
    dispatch_seconds: int = Field(
        default=15,
        ge=1,
        description="Seconds between two dispatches (queueing the assets that are due). Default 15: a due retry waits "
        "no longer, and a dispatch costs one round trip to the ledger.",
    )
    dispatch_window: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Assets in the broker's queues at once, the most urgent first; the ledger holds the rest. Default "
        "200: workers stay busy from one dispatch to the next, and a new urgent asset waits behind few.",
    )
    lease_seconds: int = Field(
        default=120,
        ge=3,
        description="Lease TTL: seconds for which a worker holds an asset without renewing its lease. Default 120: "
        "after that an asset of a killed worker is taken over, and a copy survives as long an outage of the ledger. "
        "More than 6 hours count as 6.",
    )
    mismatch_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Attempts in a row, each with a fresh URL, that must find the same doubts (a missing segment, "
        "another kind of file than expected) before the asset is stored with them and quarantined. Default 3: most "
        "such faults come from a proxy and pass.",
    )
    retry_base_seconds: int = Field(
        default=round(ATTEMPT.base.total_seconds()),
        ge=1,
        description="Approximate seconds before the second attempt at an asset; the backoff doubles with each attempt. "
        f"Default {round(ATTEMPT.base.total_seconds())}: a restart at the other end is over by then.",
    )
    retry_max_seconds: int = Field(
        default=round(ATTEMPT.cap.total_seconds()),
        ge=1,
        description="The longest backoff between two attempts, in seconds; never past the deadline. Default "
        f"{round(ATTEMPT.cap.total_seconds())}: after a fix, every asset is retried within the hour.",
    )

    @property
    def dispatch_every(self) -> timedelta:
        return timedelta(seconds=self.dispatch_seconds)

    @property
    def lease(self) -> timedelta:
        return min(timedelta(seconds=self.lease_seconds), MAX_LEASE)

    @property
    def lease_renew(self) -> timedelta:
        """Interval of lease renewals. Two in a row may fail before the lease expires."""
        return self.lease / 4

    @property
    def retry_base(self) -> timedelta:
        return timedelta(seconds=self.retry_base_seconds)

    @property
    def retry_max(self) -> timedelta:
        return timedelta(seconds=self.retry_max_seconds)
