"""Classify an asset by its description alone, before any byte is read. Pure; every sweep does it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.core.deadlines import expires_at
from archiver.hms.models import Asset, AssetStatus
from archiver.ledger.models import UNKNOWN_TYPE, AssetState, Row, Seen


@dataclass(frozen=True, slots=True)
class Scope:
    """Which assets this installation is to save. None: all."""

    retention: timedelta
    types: frozenset[str] | None = None
    rooms: frozenset[str] | None = None
    own_paths: Sequence[str] = ()  # storage path prefixes that are the team's own bucket


def judge(asset: Asset, scope: Scope, now: datetime | None = None) -> Seen:
    """Return the asset for the ledger, as DISCOVERED or with the end state that follows from the settings.

    Filters come first: what the team does not want is not reported as failed either. An undocumented status ends
    nothing: the archiver asks again. `now`: a `created_at` beyond it is ignored; None when that was done already.
    """
    verdict, reason = _verdict(asset, scope)
    return Seen(
        asset_id=asset.id,
        type=asset.type or UNKNOWN_TYPE,
        expires_at=expires_at(asset, scope.retention, now),
        verdict=verdict,
        created_at=asset.created_at,
        room_id=asset.room_id,
        session_id=asset.session_id,
        size_bytes=asset.size_bytes,
        reason=reason,
    )


def as_known(row: Row) -> Seen:
    """Return the asset as the ledger knows it, to enter it again if the ledger forgets it meanwhile."""
    return Seen(
        asset_id=row.asset_id,
        type=row.type,
        expires_at=row.expires_at,
        verdict=AssetState.DISCOVERED,
        created_at=row.created_at,
        room_id=row.room_id,
        session_id=row.session_id,
        size_bytes=row.size_bytes,
    )


def _verdict(asset: Asset, scope: Scope) -> tuple[AssetState, str | None]:
    if scope.types is not None and asset.type not in scope.types:
        return AssetState.SKIPPED, f"type {asset.type!r} is not in ARCHIVER_TYPES"
    if scope.rooms is not None and asset.room_id not in scope.rooms:
        return AssetState.SKIPPED, f"room {asset.room_id!r} is not in ARCHIVER_ROOMS"
    if asset.status == AssetStatus.FAILED:
        return AssetState.SOURCE_FAILED, "100ms reports status failed: there is nothing to save"
    if asset.path and any(_inside(asset.path, prefix) for prefix in scope.own_paths):
        return AssetState.EXTERNAL, f"already in the team's own bucket, at {asset.path}"
    return AssetState.DISCOVERED, None


def _inside(path: str, prefix: str) -> bool:
    """`s3://bucket` holds `s3://bucket/x` but not `s3://bucket-of-another/x`."""
    folder = prefix.rstrip("/")
    return path == folder or path.startswith(folder + "/")
