"""Errors of the 100ms API.

HmsError                     the request (method and path, never a query or a token) and the response
├── HmsUnavailable           not reached, timed out, 5xx: retry, after `retry_after` if the API gave one
│   └── HmsRateLimited       429: the same
├── HmsUnauthorized          401 or 403 with a new token: a person must fix the credentials
│   └── HmsUntrusted         the API's TLS certificate does not verify: a person must fix it
├── HmsNotFound              404
└── HmsInvalidResponse       not what the API documents (no JSON, a required field missing): retry, then tell a person
    └── HmsBadRequest        400 or another undocumented 4xx: a retry is no use
"""

from __future__ import annotations

from datetime import timedelta


class HmsError(Exception):
    """Base of everything the client raises."""


class HmsUnavailable(HmsError):
    """The API did not answer, or answered 5xx, after all retries of the client."""

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class HmsRateLimited(HmsUnavailable):
    """429, after all retries of the client."""


class HmsUnauthorized(HmsError):
    """The credentials were refused, with a new token too."""


class HmsUntrusted(HmsUnauthorized):
    """The certificate of the server at HMS_API_URL does not verify; the message has OpenSSL's reason. No token was
    sent, and a retry is no use for any asset."""


class HmsNotFound(HmsError):
    """The API does not know the asset, or no longer does."""


class HmsInvalidResponse(HmsError):
    """The response is not what the API documents."""


class HmsBadRequest(HmsInvalidResponse):
    """The API rejected the request itself."""
