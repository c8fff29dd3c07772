"""Name the 100ms workspace of credentials without revealing them."""

from __future__ import annotations

import hashlib

import jwt


def workspace_of(access_key: str) -> str:
    """Return a stable name for an app access key, as a one-way hash. Stored in buckets: it must never change."""
    return hashlib.sha256(f"100ms workspace {access_key}".encode()).hexdigest()[:16]


def access_key_in(management_token: str) -> str | None:
    """Return the access key in a management token (unverified); None when there is none."""
    try:
        claims = jwt.decode(management_token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return None
    access_key = claims.get("access_key")
    return access_key if isinstance(access_key, str) and access_key else None
