"""Build the body of an event. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archiver.core.records import keys
from archiver.ledger.models import AssetState, Event

FACT = "events"
"""Of the sender: since when deliveries fail, and why."""


@dataclass(frozen=True, slots=True)
class EventMessage:
    """`id` is the same whenever the event is delivered again: receivers drop what they have by it."""

    id: str
    type: str
    data: dict[str, object]


def message_of(event: Event, destinations: Sequence[str]) -> EventMessage:
    """`destinations`: their names, which hold no secret. Nothing in the message is one."""
    row = event.row
    stored = row.state in (AssetState.ARCHIVED, AssetState.QUARANTINED)
    return EventMessage(
        id=f"{row.asset_id}.{row.state.value}.{int(row.changed_at.timestamp() * 1_000_000)}",
        type=f"asset.{row.state.value}",
        data={
            "asset_id": row.asset_id,
            "asset_type": row.type,
            "state": row.state.value,
            "at": row.changed_at.isoformat(),
            "room_id": row.room_id,
            "session_id": row.session_id,
            "created_at": row.created_at.isoformat() if row.created_at else None,
            "reason": row.reason,
            "size_bytes": row.stored_bytes if stored else None,
            "objects": row.stored_objects if stored else None,
            "manifest": keys.manifest_key(row.asset_id, row.created_at) if stored else None,
            "destinations": list(destinations) if stored else [],
        },
    )
