from __future__ import annotations

import jwt
import pytest

from archiver.hms.workspace import access_key_in, workspace_of


def test_the_same_access_key_is_the_same_workspace_and_cannot_be_read_from_it() -> None:
    key = "6400c0d3e1b2a3c4d5e6f700"

    assert workspace_of(key) == workspace_of(key)
    assert workspace_of(key) != workspace_of(key[::-1])
    assert key not in workspace_of(key)


def test_a_management_token_names_its_access_key() -> None:
    token = jwt.encode({"access_key": "key", "type": "management"}, "s" * 32, algorithm="HS256")

    assert access_key_in(token) == "key"


@pytest.mark.parametrize("claims", [{}, {"access_key": 7}, {"access_key": ""}])
def test_a_token_that_names_none_is_of_an_unknown_workspace(claims: dict[str, object]) -> None:
    assert access_key_in(jwt.encode(claims, "s" * 32, algorithm="HS256")) is None


@pytest.mark.parametrize("token", ["", "no token", "a.b.c"])
def test_what_is_no_token_names_none(token: str) -> None:
    assert access_key_in(token) is None
