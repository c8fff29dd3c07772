"""What can go wrong above the bytes.

ArchiveError
├── ContentsError            the asset's inside is not what can be archived
│   ├── BadContents          hostile or broken (a bomb, `../`, an endless playlist): a passing fault first
│   ├── IncompleteContents   something that belongs to it cannot be had
│   └── NeedsSourceAccess    only the m3u8 is signed (100ms-api.md, form 3)
├── ManifestError            a manifest in the bucket cannot be read or does not hold
└── DestinationsFailed       some or all destinations could not take the asset
StorageError (storage_backends.errors)
└── RefusedAlone             a destination refuses objects of this asset, and takes others
"""

from __future__ import annotations

from collections.abc import Mapping

from storage_backends.errors import StorageError


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


class ManifestError(ArchiveError):
    """A manifest is unreadable or contradicts what is stored."""


class RefusedAlone(StorageError):
    """A destination refuses something of this asset and yet works: no reason to let others wait."""


class DestinationsFailed(ArchiveError):
    """Some or all destinations could not take the asset; those not named here hold it whole."""

    def __init__(self, failed: Mapping[str, StorageError]) -> None:
        super().__init__(
            "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in failed.items())
        )
        self.failed = failed
