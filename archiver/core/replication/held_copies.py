"""What each destination holds of one asset while it is repaired, and which of the copies may be used for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from archiver.core.records import keys
from archiver.core.records.commit import LACKING
from archiver.core.records.manifest import Manifest, find_manifest
from archiver.core.records.verify import verify_in_full, verify_listed
from archiver.ledger.models import AssetState, CopyState, Row
from storage_backends.base import ObjectKey, StorageBackend, object_key
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class HeldCopy:
    """`state`: None when it could not be asked. `problems`: of a copy that is not whole. `hidden`: it is damaged, and
    neither its manifest nor a list of its objects shows it."""

    store: StorageBackend
    state: CopyState | None
    manifest: Manifest | None = None
    problems: Sequence[str] = ()
    hidden: bool = False


def is_doubtful(row: Row, name: str) -> bool:
    """Whether a copy that is whole by its sizes may be one that was found damaged: the store may not have let us mark
    its manifest."""
    known = row.copies.get(name)
    return known is CopyState.DAMAGED or (row.state is AssetState.DAMAGED and known is None)


def look(store: StorageBackend, key: ObjectKey, *, doubtful: bool, between: Callable[[], None]) -> HeldCopy:
    """`doubtful`: read every byte. `between`: called before each read."""
    try:
        found = find_manifest(store, key)
        if found is None:
            return HeldCopy(store, CopyState.LACKING, problems=(LACKING,))
        if found.manifest is None:
            return HeldCopy(
                store, CopyState.DAMAGED, problems=(found.problem or "its manifest is unreadable",)
            )
        verified = verify_listed(store, found.manifest)
        is_listed_whole = verified.ok
        if doubtful and is_listed_whole:
            verified = verify_in_full(store, found.manifest, between=between)
            if not verified.ok:  # one bad answer is no damage
                verified = verify_in_full(store, found.manifest, between=between)
    except StorageError as error:
        log.warning("copy_not_listed", store=store.name, key=key, reason=str(error))
        return HeldCopy(store, None, problems=(str(error),))
    state = CopyState.WHOLE if verified.ok else CopyState.DAMAGED
    return HeldCopy(store, state, found.manifest, verified.problems, is_listed_whole and not verified.ok)


def known_state(row: Row, copy: HeldCopy) -> CopyState | None:
    """Return what was seen of it; of one that could not be asked, what the ledger knows."""
    return copy.state or row.copies.get(copy.store.name)


def set_aside_doubted(row: Row, copies: Sequence[HeldCopy]) -> None:
    """A copy with doubts is not what was archived, at the quorum: it is replaced by one without. Of an archived asset,
    while none without is seen to be whole, nor all of them not to be, the ledger's knowledge of it stays, and of one
    that has vanished: its disk may not be mounted, and a reconcile, which knows the destinations, decides."""
    doubted = [copy for copy in copies if copy.manifest is not None and not copy.manifest.trusted]
    if row.state not in (AssetState.ARCHIVED, AssetState.DAMAGED) or not doubted:
        return
    others = [copy for copy in copies if copy not in doubted]
    if any(copy.state is CopyState.WHOLE for copy in others):
        for copy in doubted:
            copy.state, copy.problems = CopyState.DAMAGED, ("it has doubts, and another copy has none",)
        return
    if row.state is AssetState.DAMAGED:
        return  # the one with doubts may be the best there is
    if others and all(_is_surely_not_whole(row, copy) for copy in others):
        for copy in doubted:
            copy.state, copy.problems = CopyState.DAMAGED, ("it has doubts, and no copy without is whole",)
        return
    for copy in doubted:
        copy.state, copy.problems = None, ("it has doubts, and no copy without is seen to be whole",)
    for copy in others:
        if copy.state is CopyState.LACKING and row.copies.get(copy.store.name) is CopyState.WHOLE:
            copy.state, copy.problems = None, ("it has vanished",)


def _is_surely_not_whole(row: Row, copy: HeldCopy) -> bool:
    """Whether it was seen to be damaged, or is missing where the ledger knows of no whole one."""
    if copy.state is CopyState.LACKING:
        return row.copies.get(copy.store.name) in (CopyState.LACKING, CopyState.DAMAGED)
    return copy.state is CopyState.DAMAGED


def is_surpassed(source: HeldCopy, copies: Sequence[HeldCopy]) -> bool:
    """Whether the whole copies have doubts, and a damaged one has none: it is better, if it can be completed."""
    return not is_trusted(source) and any(
        copy.state is CopyState.DAMAGED and is_trusted(copy) for copy in copies
    )


def is_trusted(copy: HeldCopy) -> bool:
    return copy.manifest is not None and copy.manifest.trusted


def may_lend(copy: HeldCopy) -> bool:
    return copy.state is CopyState.DAMAGED or (copy.state is CopyState.WHOLE and not is_trusted(copy))


def lists(manifest: Manifest) -> Mapping[str, tuple[int, str]]:
    return {item.path: (item.size, item.crc32c) for item in manifest.objects}


def shared_paths(listed: Manifest, content: Mapping[str, tuple[int, str]]) -> set[str]:
    """Return the paths of `listed` whose objects are those of `content`."""
    return {path for path, what in lists(listed).items() if content.get(path) == what}


def folder_for(listed: Manifest, there: Manifest | None) -> str:
    """Return the folder of the copy: that of the source, unless the manifest at the target lists something else there,
    which is not overwritten."""
    if there is None or there.folder != listed.folder:
        return listed.folder
    ours = lists(listed)
    if all(
        ours.get(item.path, (item.size, item.crc32c)) == (item.size, item.crc32c) for item in there.objects
    ):
        return listed.folder
    base = object_key(keys.without_version(listed.folder))
    return next(
        folder
        for number in range(2, 100)
        if (folder := keys.version_folder(base, number)) not in (listed.folder, there.folder)
    )
