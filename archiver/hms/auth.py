"""Management tokens: JSON Web Tokens (RFC 7519) for the API's `Authorization: Bearer`."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import jwt
from pydantic import SecretStr

from archiver.hms.errors import HmsUnauthorized

Clock = Callable[[], datetime]
"""The time now, aware UTC."""

LIFE = timedelta(hours=24)  # what 100ms's samples use; the longest accepted is 14 days
BACKDATED = timedelta(
    seconds=10
)  # as their SDK does: a clock that is ahead would make a token "not yet valid"
RENEW_BELOW = 0.1  # of its life: 2.4 h, far longer than any request that carries it


def utc_now() -> datetime:
    return datetime.now(UTC)


class TokenProvider(Protocol):
    """Source of the client's tokens. `now` dates a new token: the API's time, where it is known. Thread-safe; the token
    is never in the repr."""

    def token(self, now: datetime, /) -> SecretStr:
        """Return a token that is valid at `now`. Raises HmsUnauthorized when none can be made."""
        ...

    def replacement(self, refused: SecretStr, now: datetime, /) -> SecretStr | None:
        """Return a token other than `refused`, which the API did not accept; None when there is none. All threads that
        hold the same refused token get the same replacement."""
        ...


@dataclass(frozen=True, slots=True)
class _Signed:
    token: SecretStr
    valid_from: datetime
    renew_at: datetime


@dataclass(slots=True)
class ManagementToken:
    """Signs management tokens with the workspace's access key and app secret, and renews them early."""

    access_key: str
    secret: SecretStr
    _signed: _Signed | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def token(self, now: datetime, /) -> SecretStr:
        with self._lock:
            signed = self._signed
            if signed is None or not signed.valid_from <= now < signed.renew_at:
                signed = self._signed = self._sign(now)
            return signed.token

    def replacement(self, refused: SecretStr, now: datetime, /) -> SecretStr:
        with self._lock:
            if self._signed is None or self._signed.token == refused:
                self._signed = self._sign(now)
            return self._signed.token

    def _sign(self, now: datetime) -> _Signed:
        issued = now - BACKDATED
        claims = {
            "access_key": self.access_key,
            "type": "management",
            "version": 2,
            "iat": int(issued.timestamp()),
            "nbf": int(issued.timestamp()),
            "exp": int((issued + LIFE).timestamp()),
            "jti": str(uuid.uuid4()),
        }
        try:
            token = jwt.encode(claims, self.secret.get_secret_value(), algorithm="HS256")
        except jwt.PyJWTError as error:
            reason = type(error).__name__
        else:
            return _Signed(SecretStr(token), issued, issued + LIFE * (1 - RENEW_BELOW))
        raise HmsUnauthorized(
            f"signing a management token: the app secret cannot be used as an HMAC key ({reason}). "
            "Copy it again from the 100ms dashboard (Developer section) into HMS_SECRET"
        )


@dataclass(frozen=True, slots=True)
class FixedToken:
    """A management token from the settings. It cannot be renewed: when it is refused, a person must act."""

    value: SecretStr

    def token(self, _now: datetime, /) -> SecretStr:
        return self.value

    def replacement(self, _refused: SecretStr, _now: datetime, /) -> None:
        return None
