"""Errors of copying. Failures of a destination stay `storage_backends.errors.StorageError`.

TransferError
├── SourceError                 what was read (scheme, host and path, never a query), what was answered
│   ├── SourceUnavailable       timeouts, cut connections, 429, 5xx: worth trying again soon
│   │   └── SourceUntrusted     its TLS certificate does not verify: a person must act
│   ├── SourceForbidden         401 or 403 with a freshly signed URL too
│   ├── SourceGone              404 or 410 with a freshly signed URL too
│   ├── SourceMismatch          it did not arrive whole (length, checksum, framing), or is not what was expected
│   │   ├── SourceChanged       another ETag or length than at the start: this object is restarted
│   │   ├── RangesUnreliable    ranges are answered wrongly: read it as one plain stream instead
│   │   ├── ErrorPage           an error answer with status 200: never stored
│   │   └── UnexpectedContent   it arrived whole by framing, and is not what it should be: may be kept with a doubt
│   │       └── StillEncoded    its content coding cannot be undone, or unpacks to too much: may be kept as it is sent
│   └── SourceNotAllowed        an address the policy refuses (private host, plain http, a redirect to one)
├── BudgetTooSmall              one part needs more memory than transfers may take: raise the setting
└── Stopped                     the copy was cancelled (shutdown, lease lost); nothing is wrong with the source
    └── Preempted              at a part's end, to make room for a more urgent asset
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage_backends.errors import StorageError


class TransferError(Exception):
    """Anything the engine raises itself."""


class SourceError(TransferError):
    """The source could not be read. `failed_stores`: by name, those that failed while it was copied."""

    failed_stores: Mapping[str, StorageError] = MappingProxyType({})


class SourceUnavailable(SourceError):
    """The source did not answer properly now; the same request may succeed later."""

    def __init__(
        self, message: str, retry_after: timedelta | None = None, *, throttled: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.throttled = throttled  # 429 or 503: fewer connections are wanted


class SourceUntrusted(SourceUnavailable):
    """The TLS certificate of the source does not verify; the message holds OpenSSL's reason. `origin`: scheme, host and
    port. Not worth a retry before somebody has seen to it."""

    def __init__(self, message: str, origin: str = "a source") -> None:
        super().__init__(message, retry_after=timedelta(minutes=5))
        self.origin = origin


class SourceForbidden(SourceError):
    """401 or 403, with a fresh signature too."""


class SourceGone(SourceError):
    """404 or 410, with a fresh signature too."""


class SourceMismatch(SourceError):
    """The bytes are not what was announced or expected. They were not stored."""


class SourceChanged(SourceMismatch):
    """The source is not the file it was when this copy began."""


class RangesUnreliable(SourceMismatch):
    """The source answers ranges wrongly (a 200, no or another Content-Range). Retry as one plain stream."""


class ErrorPage(SourceMismatch):
    """The body is an error answer sent with status 200. It is never stored, whatever was expected."""


class UnexpectedContent(SourceMismatch):
    """The body arrived whole by framing and length but is not what this file should be: first bytes of another
    kind, or a container that is cut or empty. Retried on a fresh URL; when the same bytes come again, they are kept
    with a doubt."""


class StillEncoded(UnexpectedContent):
    """The body has a content coding that we cannot undo (br, zstd), or that unpacks to more than is allowed. It can be
    kept as it is sent: `transfer.source.as_sent`. `what` is the message without the address."""

    def __init__(self, name: str, what: str = "") -> None:
        super().__init__(f"{name} {what}")
        self.what = what


class SourceNotAllowed(SourceError):
    """The policy on addresses refuses this source."""


class BudgetTooSmall(TransferError):
    """The memory setting is smaller than one part of this object; the message names both."""


class Stopped(TransferError):
    """The caller's stop signal was seen; nothing half-done is visible."""


class Preempted(Stopped):
    """The copy ended at a part's end to make room for another; what was read is stored, and another attempt resumes."""
