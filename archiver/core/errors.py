"""What can go wrong above the bytes.

ArchiveError
├── ContentsError            the asset's inside is not what can be archived
│   ├── BadContents          hostile or broken (a bomb, `../`, an endless playlist): a passing fault first
│   ├── IncompleteContents   something that belongs to it cannot be had
│   └── NeedsSourceAccess    only the m3u8 is signed (100ms-api.md, form 3)
├── ManifestError            a manifest in the bucket cannot be read or does not hold
├── Outranked                a newer attempt has committed: its manifest stays
├── ReviewRefused            a person's decision does not fit the asset
├── WouldOverwrite           the asset differs from what a manifest lists, or must stay, under the same keys
├── Doubtful                 it arrived, and is perhaps not what it should be; what is whole of it is stored
└── DestinationsFailed       some or all destinations could not take the asset
StorageError (storage_backends.errors)
├── DestinationRefuses
│   └── DestinationUnusable  nothing is to be done at this destination on this machine, nor concluded from it
│       ├── NotTheDestination  it is not the one that the ledger knows (core.destinations.identity)
│       └── DestinationSilent  it has not answered here for minutes
└── RefusedAlone             a destination refuses objects of this asset, and takes others
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from storage_backends.errors import DestinationRefuses, StorageError


class ArchiveError(Exception):
    """Anything the core raises itself."""


class ContentsError(ArchiveError):
    """The asset cannot be archived as it is."""


class BadContents(ContentsError):
    """What arrived is broken or hostile. Nothing of it was written that it could misuse."""


class IncompleteContents(ContentsError):
    """A part of the asset is missing at the source."""


class NeedsSourceAccess(ContentsError):
    """The signature covers the master playlist alone; its children need credentials for the asset's own path."""


class ReviewRefused(ArchiveError):
    """`accept`, `reject` or `ack` does not fit the asset; the message says why and what to do."""


class WouldOverwrite(ArchiveError):
    """What is at the source differs from what a manifest of this folder lists, or from what is there and cannot be
    replaced: it belongs in another folder."""

    def __init__(self, path: str, what: str = "what a manifest of this folder lists") -> None:
        super().__init__(f"{path} differs from {what}")


class Doubtful(ArchiveError):
    """The attempt found doubts, not yet often enough to keep the asset with them. `fingerprint` names
    what it found."""

    def __init__(
        self,
        message: str,
        fingerprint: str | None = None,
        *,
        busy: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        """`fingerprint`: None counts together with every other. `busy`: a part of it did not answer now, so that it is
        worth trying again soon; `retry_after`: when the source asked to be."""
        super().__init__(message)
        self.fingerprint = fingerprint
        self.busy = busy
        self.retry_after = retry_after


class ManifestError(ArchiveError):
    """A manifest is unreadable or contradicts what is stored."""


class Outranked(ArchiveError):
    """A destination holds the manifest of an attempt with a higher fencing token. Nothing was written over it."""


class DestinationUnusable(DestinationRefuses):
    """The circuit breaker of a destination is open on this machine: whatever it holds or lacks proves nothing."""


class NotTheDestination(DestinationUnusable):
    """What answers under this name is not the destination that the ledger knows. Nothing was written."""


class DestinationSilent(DestinationUnusable):
    """The destination has failed every call of this machine for minutes."""


class RefusedAlone(StorageError):
    """A destination refuses something of this asset and yet works: no reason to let others wait."""


class DestinationsFailed(ArchiveError):
    """Some or all destinations could not take the asset; those not named here hold it whole."""

    def __init__(self, failed: Mapping[str, StorageError]) -> None:
        super().__init__(
            "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in failed.items())
        )
        self.failed = failed
