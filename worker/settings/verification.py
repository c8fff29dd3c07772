"""How often archived copies are verified again."""

from __future__ import annotations

from pydantic import ByteSize, Field

from worker.settings.group import SettingsGroup


class VerificationSettings(SettingsGroup):
    scrub_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Days within which the daily scrub verifies each archived copy again, in part by the store's own "
        "checksums. Default 30: most backups and object versions reach back further than that.",
    )
    scrub_full_days: int = Field(
        default=365,
        ge=1,
        le=36500,
        description="Days within which every byte of each archived copy is read back again, even where the store has "
        "checksums of its own; a new copy is read once before its source expires. Default 365: a store's own "
        "checksums are trusted for a year.",
    )
    scrub_bytes_a_day: ByteSize | None = Field(
        default=None,
        ge=2**20,
        validation_alias="ARCHIVER_SCRUB_BYTES",
        description="The most that the scrub reads back from each destination in a day, on average, with a unit "
        "(50GiB) or in bytes. `archiver status` reports when ARCHIVER_SCRUB_DAYS cannot be kept with it. Default: no "
        "limit.",
    )
