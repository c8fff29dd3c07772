"""Which 100ms workspace credentials belong to, as a name that is no secret."""

from __future__ import annotations

import hashlib

import jwt


def workspace_of(access_key: str) -> str:
    """The same for the same app access key, for ever. The key cannot be had from it."""
    return hashlib.sha256(f"100ms workspace {access_key}".encode()).hexdigest()[:16]


def access_key_in(management_token: str) -> str | None:
    """The claim of a management token that somebody else signed; None when it cannot be read."""
    try:
        claims = jwt.decode(management_token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return None
    access_key = claims.get("access_key")
    return access_key if isinstance(access_key, str) and access_key else None
