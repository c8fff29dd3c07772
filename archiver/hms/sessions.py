"""Sessions and their peers: who was in a recording. Names and user ids are personal data.

All of it is optional: 100ms may not know a session any more, or name no peers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from archiver.hms.errors import HmsInvalidResponse
from archiver.hms.models import parse_time

MOST_PEERS = 20_000
"""Kept of one session; a large live stream has some thousands."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Peer(_Part):
    """One connection of one user; somebody who comes back is another peer. `user_id`: as the customer's app gave it."""

    id: str | None = None
    name: str | None = None
    user_id: str | None = None
    role: str | None = None
    joined_at: datetime | None = None
    left_at: datetime | None = None


class Session(_Part):
    """`peers`: None when 100ms does not name them. `active`: it goes on, and others may join."""

    id: str
    room_id: str | None = None
    created_at: datetime | None = None
    active: bool = False
    peers: tuple[Peer, ...] | None = None


def session_path(session_id: str) -> str:
    return f"/sessions/{_segment(session_id)}"


def room_path(room_id: str) -> str:
    return f"/rooms/{_segment(room_id)}"


def read_session(body: Mapping[str, Any], session_id: str) -> Session:
    """Read `GET /sessions/<id>`. `peers` is documented as an array; older answers have an object by peer id, and `user`
    instead of `user_id`. Invalid fields are left out. Raises HmsInvalidResponse when it is not this session."""
    if body.get("id") != session_id:
        raise HmsInvalidResponse(
            f"100ms API, GET {session_path(session_id)}: answered 200 without this session's `id`"
        )
    peers = body.get("peers")
    return Session(
        id=session_id,
        room_id=_text(body, "room_id"),
        created_at=parse_time(body.get("created_at")),
        active=body.get("active") is True,
        peers=tuple(_peers(peers))[:MOST_PEERS] if isinstance(peers, list | dict) else None,
    )


def read_room_name(body: Mapping[str, Any]) -> str | None:
    return _text(body, "name")


def _peers(peers: list[Any] | dict[str, Any]) -> Iterator[Peer]:
    rows = peers if isinstance(peers, list) else [{"id": key, **_object(each)} for key, each in peers.items()]
    for row in rows:
        if isinstance(row, dict):
            yield Peer(
                id=_text(row, "id") or _text(row, "peer_id"),
                name=_text(row, "name"),
                user_id=_text(row, "user_id") or _text(row, "user"),
                role=_text(row, "role"),
                joined_at=parse_time(row.get("joined_at")),
                left_at=parse_time(row.get("left_at")),
            )


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) and value else None


def _segment(text: str) -> str:
    return quote(text, safe="", errors="replace").replace(".", "%2E")
