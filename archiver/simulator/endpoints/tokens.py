"""Verify management tokens as documented."""

from __future__ import annotations

import uuid
from typing import Any

import jwt

LONGEST_VALIDITY_SECONDS = 14 * 24 * 3600


class TokenRefused(Exception):
    """`status`: 401 for an invalid token, 403 for one that may not do this."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def check_token(authorization: str | None, access_key: str, secret: str, now_seconds: float) -> None:
    """Raise TokenRefused unless the header carries a valid management token."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TokenRefused(401, "missing bearer token")
    claims = _claims(token.strip(), secret)
    if claims.get("access_key") != access_key:
        raise TokenRefused(401, "unknown access_key")
    _check_times(claims, now_seconds)
    if not _is_uuid(claims.get("jti")):
        raise TokenRefused(401, "jti is missing or no UUID")
    if claims.get("type") != "management" or claims.get("version") != 2:
        raise TokenRefused(403, "not a management token of version 2")


def _claims(token: str, secret: str) -> dict[str, Any]:
    # The times are checked below, against the simulator's own clock.
    unchecked = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    try:
        return jwt.decode(token, secret, algorithms=["HS256"], options=unchecked)  # type: ignore[arg-type]
    except jwt.InvalidTokenError:
        raise TokenRefused(401, "token is malformed or its signature is invalid") from None


def _check_times(claims: dict[str, Any], now_seconds: float) -> None:
    times = [claims.get(name) for name in ("iat", "nbf", "exp")]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in times):
        raise TokenRefused(401, "iat, nbf and exp must be numbers")
    issued, not_before, expires = (float(value or 0) for value in times)
    if expires <= now_seconds:
        raise TokenRefused(401, "token has expired")
    if max(issued, not_before) > now_seconds:
        raise TokenRefused(401, "token used before issued")
    if expires - issued > LONGEST_VALIDITY_SECONDS:
        raise TokenRefused(401, "token is valid for longer than 14 days")


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(uuid.UUID(value))
    except ValueError:
        return False
