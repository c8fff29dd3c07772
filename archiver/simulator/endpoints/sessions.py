"""Who was in a session: peers that follow from the session's id, and of its own assets."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from archiver.simulator.config import SessionPeers
from archiver.simulator.recordings.assets import hexadecimal

_NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald")


def session_of(rows: list[dict[str, Any]], peers: SessionPeers) -> dict[str, Any]:
    """Return a session with these assets. Two to four users, `user-0` to `user-4`; the first comes back once, and
    tracks are the first one's."""
    session_id, created_at = str(rows[0]["session_id"]), min(str(row["created_at"]) for row in rows)
    session: dict[str, Any] = {
        "id": session_id,
        "room_id": rows[0]["room_id"],
        "customer_id": hexadecimal("account"),
        "active": False,
        "created_at": created_at,
    }
    number = int(hexadecimal("peers", session_id)[:6], 16)
    users = [(number + each) % len(_NAMES) for each in range(2 + number % 3)]
    found = [_peer(session_id, each, user, created_at) for each, user in enumerate([*users, users[0]])]
    of_assets = {str(row["metadata"]["peer_id"]) for row in rows if "peer_id" in (row.get("metadata") or {})}
    for peer, peer_id in zip(found, sorted(of_assets), strict=False):
        peer["id"] = peer_id
    match peers:
        case SessionPeers.ARRAY:
            session["peers"] = found
        case SessionPeers.OBJECT:
            session["peers"] = {
                peer["id"]: {**peer, "user": peer["user_id"], "user_id": None} for peer in found
            }
        case SessionPeers.NONE:
            pass
    return session


def _peer(session_id: str, number: int, user: int, created_at: str) -> dict[str, Any]:
    joined = datetime.fromisoformat(created_at) + timedelta(minutes=number)
    return {
        "id": hexadecimal("peer", session_id, str(number)),
        "session_id": session_id,
        "name": _NAMES[user],
        "role": "host" if number == 0 else "guest",
        "user_id": f"user-{user}",
        "joined_at": joined.isoformat(),
        "left_at": (joined + timedelta(minutes=30)).isoformat(),
    }
