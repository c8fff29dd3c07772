"""Copy an archived asset again if the API reports another size and the source has something else."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, runtime_checkable

import structlog

from archiver.core.attempt.context import Attempt
from archiver.core.attempt.decisions import describe
from archiver.core.attempt.looking import Found, manifests_at
from archiver.core.attempt.outcomes import Archived, WillRetry
from archiver.core.attempt.saving import save
from archiver.core.contents.base import Contents
from archiver.core.deadlines import is_over
from archiver.core.errors import Doubtful
from archiver.core.records.keys import OUR_FILES
from archiver.core.records.manifest import Manifest
from archiver.hms.errors import HmsUnavailable
from archiver.hms.models import Asset
from archiver.transfer.errors import SourceUnavailable

log = structlog.get_logger(__name__)


@runtime_checkable
class TellsLength(Protocol):
    """Contents of one file whose source says how long it is."""

    @property
    def source_bytes(self) -> int | None: ...


class Change(Enum):
    NONE = "the source has what is archived"
    NEW = "the source has other content, at least as long"
    SHORTER = "the source has less than what is archived"
    UNKNOWN = "the source does not tell"


def has_other_size(asset: Asset, manifest: Manifest) -> bool:
    """Return whether the API gives another size than when `manifest` was written."""
    before = Asset.parse({**manifest.asset, "id": asset.id}).size_bytes
    return before is not None and asset.size_bytes is not None and before != asset.size_bytes


def copy_if_resized(
    attempt: Attempt, asset: Asset, manifest: Manifest
) -> Archived | WillRetry | tuple[str, ...]:
    """Copy the asset again if the API tells another size than when `manifest` was written, and its source has something
    else now, and no less of it; otherwise return the warnings.

    Raises Doubtful while the source cannot be asked, and what `save` raises.
    """
    if not has_other_size(asset, manifest):
        return ()
    deps = attempt.deps
    size = f"100ms changed its size from {manifest.asset.get('size')} to {asset.size_bytes} after it was archived"
    try:
        change = compare(manifest, deps.open_contents(asset))
        log.warning("asset_resized", asset_id=asset.id, size=asset.size_bytes, change=change.name.lower())
        if change is Change.NEW:
            for store in deps.destinations:
                if waits := attempt.waits_for(store.name):
                    return waits
            found = Found(missing=deps.destinations, present=manifests_at(asset, deps.destinations))
            outcome = save(attempt, asset, deps.destinations, found)
            if isinstance(outcome, Archived):
                return outcome  # what has doubts never replaces what is archived
    except (SourceUnavailable, HmsUnavailable) as error:
        if is_over(attempt.row, deps.clock()):
            raise
        why = f"{size}; {describe(error)}"
        raise Doubtful(why, None, busy=True, retry_after=error.retry_after) from error
    return () if change is Change.NONE else (f"{size}, and {change.value}",)


def compare(manifest: Manifest, contents: Contents) -> Change:
    """Compare what the source has now, by its length and ETag, with what `manifest` lists."""
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
