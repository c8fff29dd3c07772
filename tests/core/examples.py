"""Assets and rows to test with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from archiver.hms.models import Asset
from archiver.ledger.models import AssetState, Row

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RETENTION = timedelta(days=15)


def asset(**fields: Any) -> Asset:
    raw = {
        "id": "6400c0d3e1b2a3c4d5e6f708",
        "job_id": "job-1",
        "room_id": "room-1",
        "session_id": "session-1",
        "type": "room-composite",
        "status": "completed",
        "path": "s3://hms-recordings/beam/room-1/20260301/Rec-room-1-1700000000.mp4",
        "size": 1000,
        "created_at": "2026-03-01T07:44:27.010516042Z",
        **fields,
    }
    return Asset.parse(raw)


def row(**fields: Any) -> Row:
    values: dict[str, Any] = {
        "asset_id": "6400c0d3e1b2a3c4d5e6f708",
        "type": "room-composite",
        "state": AssetState.RUNNING,
        "expires_at": NOW + timedelta(days=10),
        "first_seen_at": NOW,
        "changed_at": NOW,
        "attempts": 1,
    }
    return Row(**{**values, **fields})
