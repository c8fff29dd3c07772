"""The API lets in a management token as documented, and no other."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest

from tests.simulator.process import Simulator

DAY = 24 * 3600


def _ask(simulator: Simulator, client: httpx.Client, authorization: str | None) -> httpx.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    return client.get(f"{simulator.api_url}/recording-assets", headers=headers)


def test_a_documented_token_is_let_in(simulator: Simulator, client: httpx.Client) -> None:
    answer = _ask(simulator, client, f"Bearer {simulator.token()}")

    assert answer.status_code == 200


def test_a_token_may_be_used_again(simulator: Simulator, client: httpx.Client) -> None:
    token = simulator.token()

    answers = [_ask(simulator, client, f"Bearer {token}").status_code for _ in range(2)]

    assert answers == [200, 200]


def test_a_token_for_fourteen_days_is_let_in(simulator: Simulator, client: httpx.Client) -> None:
    now = int(time.time()) - 10

    answer = _ask(simulator, client, f"Bearer {simulator.token(iat=now, nbf=now, exp=now + 14 * DAY)}")

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"access_key": "somebody-else"}, 401),
        ({"access_key": None}, 401),
        ({"exp": -1}, 401),
        ({"exp": 15 * DAY}, 401),
        ({"exp": None}, 401),
        ({"iat": 300}, 401),
        ({"nbf": 300}, 401),
        ({"iat": None}, 401),
        ({"nbf": None}, 401),
        ({"jti": None}, 401),
        ({"jti": "not-a-uuid"}, 401),
        ({"type": "app"}, 403),
        ({"version": 1}, 403),
    ],
    ids=str,
)
def test_a_token_with_other_claims_is_refused(  # times are seconds from now
    simulator: Simulator, client: httpx.Client, claims: dict[str, Any], status: int
) -> None:
    now = int(time.time())
    absolute = {
        name: now + value if isinstance(value, int) and name != "version" else value
        for name, value in claims.items()
    }

    answer = _ask(simulator, client, f"Bearer {simulator.token(**absolute)}")

    assert answer.status_code == status
    assert answer.json().keys() == {"code", "message", "details"}
    assert answer.json()["code"] == status


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic abc", "Bearer a.b.c"])
def test_something_else_than_a_token_is_refused(
    simulator: Simulator, client: httpx.Client, authorization: str | None
) -> None:
    assert _ask(simulator, client, authorization).status_code == 401


def test_a_token_signed_with_another_secret_is_refused(simulator: Simulator, client: httpx.Client) -> None:
    claims = jwt.decode(simulator.token(), options={"verify_signature": False})
    forged = jwt.encode(claims, "another-secret-that-is-long-enough-for-hs256", algorithm="HS256")

    assert _ask(simulator, client, f"Bearer {forged}").status_code == 401


def test_an_unsigned_token_is_refused(simulator: Simulator, client: httpx.Client) -> None:
    claims = {"access_key": simulator.access_key, "jti": str(uuid.uuid4())}
    unsigned = jwt.encode(claims, "", algorithm="none")

    assert _ask(simulator, client, f"Bearer {unsigned}").status_code == 401


@pytest.mark.parametrize("skew", [timedelta(hours=25), timedelta(minutes=-5)], ids=["ahead", "behind"])
def test_a_client_whose_clock_is_wrong_is_refused_and_can_see_why(
    simulator: Simulator, client: httpx.Client, skew: timedelta
) -> None:
    simulator.skew_api_clock(skew)

    answer = _ask(simulator, client, f"Bearer {simulator.token()}")

    assert answer.status_code == 401
    shown = time.mktime(time.strptime(answer.headers["date"], "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert shown == pytest.approx(time.time() + skew.total_seconds(), abs=5)


def test_the_same_check_guards_every_endpoint(simulator: Simulator, client: httpx.Client) -> None:
    asset = simulator.asset("chat")["id"]
    paths = ["/recording-assets", f"/recording-assets/{asset}", f"/recording-assets/{asset}/presigned-url"]

    statuses = {client.get(f"{simulator.api_url}{path}").status_code for path in paths}

    assert statuses == {401}
