"""Errors of the core.

ArchiveError
├── ContentsError              the source's fault: a passing one first, then for a person
│   ├── BadContents            hostile or broken (a bomb, `../`, an endless playlist)
│   ├── IncompleteContents     something that belongs to the asset cannot be had
│   └── NeedsSourceAccess      only the m3u8 is signed (100ms-api.md, form 3): a person gives credentials
├── Doubtful                   complete but perhaps not right: retried, then stored with its doubts
├── DestinationsFailed         `failed` by store: whose fault, and whether to retry, is theirs to say
├── WouldOverwrite             another content than a manifest lists: this attempt goes on in another folder
├── AssetErased                a destination holds its tombstone: nothing of it is stored again
├── Outranked                  a newer attempt has committed: nothing to retry
├── ManifestError              a manifest cannot be read: the asset is copied again
├── RestoreError               what was asked for cannot be restored
│   ├── FolderFull             the file system of the folder is full: make room, run it again
│   ├── FolderBusy             another restore writes to the same folder
│   ├── FolderUnusable         the folder cannot be written: a person corrects it
│   └── FileRefused            the folder cannot hold this file; others go on
├── LedgerOfAnotherWorkspace   two installations share a ledger: a person separates them
└── ReviewRefused              a person's decision does not fit the asset: it is decided again
StorageError (storage_backends.errors)
├── DestinationRefuses
│   └── DestinationUnusable    the circuit breaker of a destination is open on this machine alone
│       ├── NotTheDestination  another disk or bucket answers under its name: a person fixes it
│       └── DestinationSilent  it has failed every call of this machine for minutes
└── RefusedAlone               it refuses this asset and takes others: retried, other assets go on
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from storage_backends.errors import DestinationRefuses, StorageError


class ArchiveError(Exception):
    """Anything the core raises itself."""


class LedgerOfAnotherWorkspace(ArchiveError):
    """The ledger holds the assets of another 100ms workspace. Nothing was written to it."""


class ContentsError(ArchiveError):
    """The asset cannot be archived as it is."""


class BadContents(ContentsError):
    """What arrived is broken or hostile. Nothing of it was written that it could misuse."""


class IncompleteContents(ContentsError):
    """A part of the asset is missing at the source."""


class NeedsSourceAccess(ContentsError):
    """The signature covers the master playlist alone; its children need credentials for the asset's own path."""


class Doubtful(ArchiveError):
    """The attempt has doubts, and not yet found the same ones often enough to store the asset with them.

    `fingerprint` names what it found; None counts together with every other. `busy`: a part of the source did not
    answer, so an early retry may help; `retry_after` is what that part asked for.
    """

    def __init__(
        self,
        message: str,
        fingerprint: str | None = None,
        *,
        busy: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.fingerprint = fingerprint
        self.busy = busy
        self.retry_after = retry_after


class DestinationsFailed(ArchiveError):
    """Some or all destinations could not take the asset; those not in `failed` hold it whole."""

    def __init__(self, failed: Mapping[str, StorageError]) -> None:
        super().__init__(
            "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in failed.items())
        )
        self.failed = failed

    @property
    def retry_after(self) -> timedelta | None:
        """The longest that any of them asked for."""
        asked = [error.retry_after for error in self.failed.values()]
        return max((each for each in asked if each is not None), default=None)


class WouldOverwrite(ArchiveError):
    """The source's `path` differs from what a manifest of this folder lists, or from what is there and cannot be
    replaced: it belongs in another folder."""

    def __init__(self, path: str, what: str = "what a manifest of this folder lists") -> None:
        super().__init__(f"{path} differs from {what}")
        self.path = path


class Outranked(ArchiveError):
    """`store` holds, at `key`, the manifest of an attempt with a higher fencing token; it was not overwritten."""

    def __init__(self, message: str, *, store: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.store = store
        self.key = key


class AssetErased(ArchiveError):
    """`store` holds the asset's tombstone."""

    def __init__(self, message: str, *, store: str | None = None) -> None:
        super().__init__(message)
        self.store = store


class ManifestError(ArchiveError):
    """The manifest at `key` of `store` is unreadable or contradicts what is stored."""

    def __init__(self, message: str, *, store: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.store = store
        self.key = key


class ReviewRefused(ArchiveError):
    """`accept`, `reject`, `ack`, `skip` or `retry` does not fit the asset; the message says why and what to do."""


class DestinationUnusable(DestinationRefuses):
    """The circuit breaker of a destination is open on this machine: conclude nothing from what it holds or lacks."""


class NotTheDestination(DestinationUnusable):
    """What answers under this name is not the destination that the ledger knows. Nothing was written."""


class DestinationSilent(DestinationUnusable):
    """The destination has failed every call of this machine for minutes."""


class RefusedAlone(StorageError):
    """The destination refuses something of this asset and takes other objects: other assets need not wait."""


class RestoreError(ArchiveError):
    """What was asked for cannot be restored; the message says what to do."""


class FolderFull(RestoreError):
    """No space or quota is left where the folder is. What was restored stays, and a second run resumes."""


class FolderBusy(RestoreError):
    """Another restore writes to the same folder."""


class FolderUnusable(RestoreError):
    """The folder cannot be written."""


class FileRefused(RestoreError):
    """The folder cannot hold this one file: its name, its size, or what is there already."""
