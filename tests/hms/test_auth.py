from __future__ import annotations

import pickle
import threading
import uuid
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from pydantic import SecretStr

from archiver.hms.auth import FixedToken, ManagementToken, TokenProvider
from archiver.hms.errors import HmsUnauthorized

SECRET = "app-secret-of-the-tests-0123456789-0123456789"
NOON = datetime(2026, 8, 1, 12, 0, 0, tzinfo=UTC)


def _provider() -> ManagementToken:
    return ManagementToken("the-access-key", SecretStr(SECRET))


def test_a_token_holds_exactly_the_documented_claims() -> None:
    token = _provider().token(NOON).get_secret_value()

    claims = jwt.decode(
        token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_nbf": False}
    )
    assert uuid.UUID(claims.pop("jti")).version == 4
    issued = int(NOON.timestamp()) - 10
    assert claims == {
        "access_key": "the-access-key",
        "type": "management",
        "version": 2,
        "iat": issued,
        "nbf": issued,
        "exp": issued + 24 * 3600,
    }
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_a_token_is_used_again_while_more_than_a_tenth_of_its_life_is_left() -> None:
    provider = _provider()
    first = provider.token(NOON)

    assert provider.token(NOON + timedelta(hours=21.5)) == first


def test_a_token_is_renewed_before_it_expires() -> None:
    provider = _provider()
    first = provider.token(NOON)

    assert provider.token(NOON + timedelta(hours=21.7)) != first


def test_a_token_that_is_not_yet_valid_by_a_better_clock_is_not_sent() -> None:
    provider = _provider()
    ahead = provider.token(NOON + timedelta(hours=26))

    assert provider.token(NOON) != ahead


def test_a_refused_token_is_replaced_by_another() -> None:
    provider = _provider()
    first = provider.token(NOON)

    second = provider.replacement(first, NOON)

    assert second != first
    assert provider.token(NOON) == second


def test_threads_that_hold_the_same_refused_token_get_one_and_the_same_replacement() -> None:
    provider = _provider()
    refused = provider.token(NOON)
    start = threading.Barrier(8)
    got: list[SecretStr] = []

    def ask() -> None:
        start.wait(10)
        got.append(provider.replacement(refused, NOON))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 8
    assert len({token.get_secret_value() for token in got}) == 1


def test_a_fixed_token_has_no_replacement() -> None:
    provider: TokenProvider = FixedToken(SecretStr("a-token-from-elsewhere"))

    assert provider.token(NOON).get_secret_value() == "a-token-from-elsewhere"
    assert provider.replacement(provider.token(NOON), NOON) is None


def test_no_secret_and_no_token_is_in_a_repr() -> None:
    provider = _provider()
    token = provider.token(NOON).get_secret_value()
    fixed = FixedToken(SecretStr("a-token-from-elsewhere"))

    shown = f"{provider!r} {provider} {fixed!r} {fixed}"

    assert SECRET not in shown
    assert token not in shown
    assert "a-token-from-elsewhere" not in shown


def test_a_provider_cannot_be_pickled_into_a_message() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(_provider())


def test_a_secret_that_cannot_sign_is_named_by_its_variable_and_not_shown() -> None:
    secret = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    provider = ManagementToken("the-access-key", SecretStr(secret))

    with pytest.raises(HmsUnauthorized, match="HMS_SECRET") as refused:
        provider.token(NOON)

    assert "AAAA" not in str(refused.value)
