"""Sessions and rooms, as documented, as older answers had them, and odd ones."""

from __future__ import annotations

from typing import Any

import pytest

from archiver.hms.base import Sessions
from archiver.hms.errors import HmsInvalidResponse, HmsNotFound, HmsUnauthorized
from archiver.hms.sessions import Peer
from tests.hms.conftest import Talk
from tests.hms.scripted_api import html, refuses, says

PEER = {
    "id": "p1",
    "session_id": "s1",
    "name": "Ada",
    "role": "host",
    "user_id": "u1",
    "joined_at": "2026-03-01T10:00:00Z",
    "left_at": None,
}
SESSION = {
    "id": "s1",
    "room_id": "r1",
    "active": False,
    "created_at": "2026-03-01T10:00:00Z",
    "peers": [PEER],
}


def test_a_session_is_read_as_documented(talk: Talk) -> None:
    client, server = talk([says(SESSION), says({"id": "r1", "name": "Daily"})])
    sessions: Sessions = client

    session = sessions.session("s1")

    assert (session.room_id, session.active, session.created_at is not None) == ("r1", False, True)
    assert session.peers is not None
    (peer,) = session.peers
    assert (peer.id, peer.name, peer.user_id, peer.role, peer.left_at) == ("p1", "Ada", "u1", "host", None)
    assert sessions.room_name("r1") == "Daily"
    assert [asked.path for asked in server.asked] == ["/v2/sessions/s1", "/v2/rooms/r1"]


@pytest.mark.parametrize(
    ("english", "peers", "found"),
    [
        ("older: an object by peer id, and `user`", {"p1": {"name": "Ada", "user": "u1"}}, [("p1", "u1")]),
        ("no peers at all", None, None),
        ("an empty list", [], []),
        ("peers that are text", "many", None),
        (
            "rows that are none",
            [1, None, {"name": 7}, {"id": "p2", "user_id": ""}],
            [(None, None), ("p2", None)],
        ),
        ("an object of text", {"p1": "Ada"}, [("p1", None)]),
    ],
)
def test_peers_come_in_several_forms(
    talk: Talk, english: str, peers: Any, found: list[tuple[str | None, str | None]] | None
) -> None:
    session = talk([says({**SESSION, "peers": peers})])[0].session("s1")

    read = None if session.peers is None else [(peer.id, peer.user_id) for peer in session.peers]
    assert read == found, english


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuses(404), HmsNotFound),
        (refuses(403), HmsUnauthorized),
        (says({**SESSION, "id": "another"}), HmsInvalidResponse),
        (html(200), HmsInvalidResponse),
    ],
)
def test_what_is_no_session_is_an_error(talk: Talk, answer: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        talk([answer])[0].session("s1")


def test_an_id_cannot_lead_elsewhere(talk: Talk) -> None:
    client, server = talk([refuses(404)])
    with pytest.raises(HmsNotFound):
        client.session("../rooms?x=1")

    assert server.asked[0].path == "/v2/sessions/%2E%2E%2Frooms%3Fx%3D1"


def test_a_peer_holds_no_more_than_it_needs() -> None:
    assert set(Peer.model_fields) == {"id", "name", "user_id", "role", "joined_at", "left_at"}
