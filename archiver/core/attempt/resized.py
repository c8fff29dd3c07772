"""What the API's other size of an archived asset means. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, runtime_checkable

from archiver.core.contents.base import Contents
from archiver.core.records.keys import OUR_FILES
from archiver.core.records.manifest import Manifest
from archiver.hms.models import Asset


@runtime_checkable
class TellsLength(Protocol):
    """Contents of one file whose source says how long it is."""

    @property
    def source_bytes(self) -> int | None: ...


class Change(Enum):
    NONE = "the source has what is archived"
    NEW = "the source has something else, and no less of it"
    SHORTER = "the source has less than what is archived"
    UNKNOWN = "the source does not tell"


def has_other_size(asset: Asset, manifest: Manifest) -> bool:
    """Whether the API says another size than it did when `manifest` was written."""
    before = Asset.parse({**manifest.asset, "id": asset.id}).size_bytes
    return before is not None and asset.size_bytes is not None and before != asset.size_bytes


def compare(manifest: Manifest, contents: Contents) -> Change:
    """What the source has now, by its length and ETag, beside what `manifest` lists."""
    if contents.version == manifest.version:
        return Change.NONE
    stored = [item.size for item in manifest.objects if item.path not in OUR_FILES]
    length = contents.source_bytes if isinstance(contents, TellsLength) else None
    if length is None or len(stored) != 1 or contents.notes.doubts:
        return Change.UNKNOWN
    if length < stored[0]:
        return Change.SHORTER
    # without an ETag the version may name no more than what the API says
    return Change.NEW if length > stored[0] or contents.version_is_exact else Change.NONE
