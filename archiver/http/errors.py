"""Errors of HTTP requests. Messages hold no URL; the caller names what it asked for.

HttpError
├── InvalidRequest            it cannot be sent as it is; nothing was
├── CouldNotConnect           nothing was sent: no address, refused, unreachable, no answer to a handshake in time
│   └── CertificateRejected   the certificate does not verify; `reason` is OpenSSL's own: a person must act
├── TooSlow                   nothing, or next to nothing, came for as long as is allowed
├── BrokenOff                 the connection ended before the response did
├── InvalidResponse           what came is not a well-formed HTTP/1.1 response
└── TooLong                   the body is longer than was allowed for it
A fault of this machine (no file handle, no memory, no thread) is raised as itself.
"""

from __future__ import annotations


class HttpError(Exception):
    """The exchange failed, and its connection is closed."""


class InvalidRequest(HttpError):
    """Not http or https, or a character in its address, method or headers that HTTP cannot carry."""


class CouldNotConnect(HttpError):
    """Nothing was sent."""


class CertificateRejected(CouldNotConnect):
    """The server's certificate does not verify. `reason`: OpenSSL's words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"its TLS certificate is not accepted: {reason}")
        self.reason = reason


class TooSlow(HttpError):
    """Less came than the low-speed limit."""


class BrokenOff(HttpError):
    """The response was cut."""


class InvalidResponse(HttpError):
    """Malformed head, framing or body."""


class TooLong(HttpError):
    """More came than was allowed."""
