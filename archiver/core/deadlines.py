"""Compute when 100ms deletes an asset, and its priority from that. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from archiver.hms.models import Asset
from archiver.ledger.models import Row

UNDATED = datetime(1970, 1, 1, tzinfo=UTC)
"""The deadline of an asset without a usable `created_at`: it may be deleted any time, so it is archived first."""

UNDATED_RETENTION = timedelta(days=15)
"""How long after it was first seen an undated asset can exist: the retention that 100ms documents."""

EARLIEST = datetime(2019, 1, 1, tzinfo=UTC)
"""100ms recorded nothing before: an earlier `created_at` is a default such as Go's year 1 or Unix's 1970."""

LATEST_AHEAD = timedelta(days=1)
"""How far in the future a `created_at` may lie: clocks differ, and some write local time as UTC."""

ALARM_LEVELS = (timedelta(days=1), timedelta(days=3), timedelta(days=7))
"""An asset not saved with so much time left raises an alarm, again at each level (design.md, watch)."""


def is_plausible(created_at: datetime | None, now: datetime | None) -> bool:
    """Return whether an asset can have been created then. `now`: None to accept any time in the future."""
    if created_at is None or created_at < EARLIEST:
        return False
    return now is None or created_at - now <= LATEST_AHEAD


def expires_at(asset: Asset, retention: timedelta, now: datetime | None = None) -> datetime:
    """Return when 100ms deletes the asset: `created_at + retention` (100ms-api.md, Retention), or UNDATED."""
    if asset.created_at is None or not is_plausible(asset.created_at, now):
        return UNDATED
    try:
        return asset.created_at + retention
    except OverflowError:  # a date at the end of time is none
        return UNDATED


def is_undated(row: Row) -> bool:
    """Return whether the asset's deadline is not known. Versions before 0.2 entered any `created_at` in the ledger."""
    if row.expires_at < EARLIEST:
        return True
    # when it was first seen, it existed
    return row.created_at is not None and not is_plausible(row.created_at, row.first_seen_at)


def source_ends_at(row: Row) -> datetime:
    """When the source deletes the asset at the latest: its deadline; for an undated asset, as late as possible."""
    return row.first_seen_at + UNDATED_RETENTION if is_undated(row) else row.expires_at


def is_over(row: Row, now: datetime) -> bool:
    """Return whether the deadline is past, so that "gone" at the source may mean gone for good."""
    return now >= source_ends_at(row)


def alarm_level(deadline: datetime, now: datetime) -> timedelta | None:
    """Return the tightest of ALARM_LEVELS that the time left is below; None when it is below none."""
    return next((level for level in ALARM_LEVELS if deadline - now < level), None)
