"""How often archived copies are verified again and restored as a test, and how long they are kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import ByteSize, Field, field_validator

from archiver.core.upkeep.terms import Terms
from worker.settings.group import SettingsGroup

MOST_DIGITS = 5  # 273 years


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
    drill_assets: int = Field(
        default=3,
        ge=0,
        le=1000,
        description="Archived copies that a drill restores from each destination, the longest undrilled first: to a "
        "scratch folder, compared, decoded where ffmpeg is on PATH, and removed. Default 3; 0 turns the drill off.",
    )
    drill_interval_days: int = Field(
        default=7,
        ge=1,
        le=365,
        description="Days between two drills. Default 7; `archiver status` reports one that is two days late.",
    )
    drill_bytes: ByteSize = Field(
        default=ByteSize(2 * 2**30),
        ge=2**20,
        description="The largest asset that a drill restores, with a unit (2GiB) or in bytes: so much is in the "
        "scratch folder at most. Default 2GiB; what is larger, or than the space that is left, is passed over.",
    )
    drill_dir: Path | None = Field(
        default=None,
        description="Directory in which a drill makes its scratch folder, `archiver-drill`, and removes it again. "
        "Default: ARCHIVER_STATE_DIR.",
    )
    keep_days: str | None = Field(
        default=None,
        description="Days that archived assets are kept, counted from the later of when they were created and archived"
        ": a number, and others by type, such as 365,chat=30,summary=0. 0: for ever. Then they are deleted, at most a "
        "hundredth of the archive in a day (docs/erasing.md); a first or shorter term waits for `archiver expire "
        "--yes`. Default: for ever.",
    )

    @field_validator("keep_days")
    @classmethod
    def _check_terms(cls, value: str | None) -> str | None:
        _terms_in(value or "")
        return value

    @property
    def keep_terms(self) -> Terms:
        return _terms_in(self.keep_days or "")


def _terms_in(text: str) -> Terms:
    """Read `365,chat=30`. Raises ValueError."""
    default: int | None = None
    by_type: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, days = (part.strip() for part in item.rpartition("="))
        if not (days.isascii() and days.isdecimal() and len(days) <= MOST_DIGITS) or bool(equals) != bool(
            name
        ):
            raise ValueError(f"write days, such as 365 or 365,chat=30; {item!r} is neither")
        if name in by_type or (not name and default is not None):
            raise ValueError(f"{name or 'the term of all others'} is given twice")
        if name:
            by_type[name] = int(days)
        else:
            default = int(days)
    return Terms(default or 0, by_type)
