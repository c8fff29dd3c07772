"""What can go wrong with the 100ms API.

HmsError                     what was asked (method and path, never a query or a token), what was answered
├── HmsUnavailable           could not be reached, timed out, 5xx: worth trying again; `retry_after` says when,
│   └── HmsRateLimited       429; the same                                                if the API said so
├── HmsUnauthorized               401 or 403 with a fresh token: a person must fix the credentials
│   └── HmsUntrusted         the API's TLS certificate does not verify: a person must act as well
├── HmsNotFound              404
└── HmsInvalidResponse               an answer that is not what the API documents (no JSON, a required field missing):
    │                        a passing fault first, then for a person
    └── HmsBadRequest          400 or another 4xx that the documentation does not name: asking again is no use
"""

from __future__ import annotations

from datetime import timedelta


class HmsError(Exception):
    """Anything the client raises."""


class HmsUnavailable(HmsError):
    """The API did not answer, or answered 5xx, still after the client's own retries."""

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class HmsRateLimited(HmsUnavailable):
    """429, still after the client's own retries."""


class HmsUnauthorized(HmsError):
    """The credentials were refused, with a fresh token too."""


class HmsUntrusted(HmsUnauthorized):
    """The certificate of whatever answers at HMS_API_URL does not verify; the message has OpenSSL's reason. No token
    was sent, and a retry is no use for any asset."""


class HmsNotFound(HmsError):
    """The API knows no such thing (any more)."""


class HmsInvalidResponse(HmsError):
    """The answer cannot be understood."""


class HmsBadRequest(HmsInvalidResponse):
    """The API would not take the request itself, as it stands."""
