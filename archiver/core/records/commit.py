"""The manifest as the commit of an asset: find a verified one, write it, mark it as damaged.

Every write is a compare-and-swap on the manifest that was read, and none replaces one with a higher fencing token
(docs/decisions/0008-fencing.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from archiver.core.errors import Outranked
from archiver.core.records import tombstones
from archiver.core.records.keys import OUR_FILES
from archiver.core.records.locking import lock_manifest, lock_media
from archiver.core.records.manifest import TRUSTED, Manifest, StoredManifest, find_manifest
from archiver.core.records.verify import STAT_UP_TO, verify_contents, verify_listed
from archiver.ledger.models import AssetState, CopyState, Settlement
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.conditional import replace_if
from storage_backends.errors import AccessDenied, ObjectChanged, TransientStorageError

log = structlog.get_logger(__name__)

DAMAGE_NAMED = 20  # problems named in a damaged manifest; `archiver verify` finds all of them
PROBLEMS_NAMED = 3  # of each copy, in the reason of a damaged asset
LACKING = "it has no manifest that proves it"
MANIFEST_GONE = "the manifest is gone"
DOUBTED = "it has doubts, and is not what was archived"
UNREAD = "it could not be read"
RACES = 10  # lost compare-and-swaps after which a write is given up


def committed(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """Return the manifest at `key` if the asset is archived here: no doubts, not marked as damaged, and every object
    verified by `verify_listed`. Else None. Raises StorageError."""
    return _listed(store, key, trusted=True)


def kept(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """As `committed`, of a manifest with doubts: its asset is stored and quarantined, not archived. Raises
    StorageError."""
    return _listed(store, key, trusted=False)


@dataclass(frozen=True, slots=True)
class Look:
    """What is at a manifest's key. `committed`: the asset is archived by it. `hidden`: the first problem of a copy
    whose damage neither its manifest nor a list of its objects shows."""

    manifest: Manifest | None
    committed: bool
    hidden: str | None = None


def look_at(store: StorageBackend, key: ObjectKey) -> Look:
    """As `committed`, with the manifest that is there in any case. Raises StorageError."""
    manifest = _read(store, key)
    is_committed = manifest is not None and manifest.trusted and _is_there(store, key, manifest)
    return Look(manifest, is_committed)


def look_again_at(store: StorageBackend, key: ObjectKey) -> Look:
    """As `committed_after_all`. Raises StorageError."""
    manifest = committed_after_all(store, key)
    return Look(manifest, manifest is not None)


def _listed(store: StorageBackend, key: ObjectKey, *, trusted: bool) -> Manifest | None:
    manifest = _read(store, key)
    if manifest is None or manifest.trusted is not trusted:
        return None
    return manifest if _is_there(store, key, manifest) else None


def _read(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    found = find_manifest(store, key)
    if found is not None and found.manifest is None:
        log.warning("manifest_broken", store=store.name, key=key, reason=found.problem)
    return found.manifest if found else None


def _is_there(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> bool:
    verified = verify_listed(store, manifest)
    if not verified.ok:
        log.warning("manifest_contradicted", store=store.name, key=key, problems=verified.problems[:5])
    return verified.ok


def commit(store: StorageBackend, key: ObjectKey, manifest: Manifest, known: Manifest | None = None) -> None:
    """Write `manifest` as the commit of its attempt, and verify afterwards that it and all its objects are there.
    Idempotent.

    A manifest that is there stays when it lists the same objects and is `known`, from before the attempt, or ranks no
    lower; and when it has no doubts and ours has. Any other of no higher rank is replaced: ours was verified just now.
    What is incomplete afterwards is marked as damaged.

    Where the destination locks objects, the media is locked before the manifest is written, so that nothing counts as
    archived that is not locked; and the manifest as it is written. Nothing is locked that has doubts.

    Requests for a new asset of up to STAT_UP_TO objects: two for the manifest, two for the asset's tombstone, and
    one for each object.

    Raises Outranked when a newer attempt has committed other objects, AssetErased when the asset was erased (a manifest
    that was written meanwhile is removed by who erases it, or by the next reconcile), StorageError when the commit is
    not there afterwards."""
    tombstones.check(store, manifest.asset_id)
    if len(manifest.objects) > STAT_UP_TO:  # a tree takes hours; fewer were stored a moment ago
        _require(store, manifest, verify_listed(store, manifest).problems)
    if manifest.trusted:
        lock_media(store, manifest)
    there = _write(store, key, manifest, known)
    tombstones.check(store, manifest.asset_id)
    if there is not manifest and there.trusted:
        lock_manifest(store, key)
    problems = verify_listed(store, there).problems
    if problems:
        mark_damaged(store, key, problems, of=there)
        _require(store, there, problems)


def _write(store: StorageBackend, key: ObjectKey, manifest: Manifest, known: Manifest | None) -> Manifest:
    """Return the manifest that is there now: `manifest`, or the one that stays."""
    data = manifest.to_bytes()
    found: StoredManifest | None = None  # most often none is there: the first write is tried without a look
    for _ in range(RACES):
        there = found.manifest if found else None
        if there is not None and _stays(store, key, there, manifest, known):
            return there
        try:
            _replace(store, key, data, found, lock=manifest.trusted)
            if store.read(key, 0, len(data) + 1) == data:
                return manifest
        except ObjectChanged:
            pass
        except AccessDenied:  # a retention policy, Object Lock: one that says the same has to do
            found = find_manifest(store, key)
            if found is not None and found.manifest is not None and says_the_same(found.manifest, manifest):
                return found.manifest
            raise
        found = find_manifest(store, key)
    raise TransientStorageError(f"{store.name}/{key}: the manifest read back is not the one written")


def _stays(
    store: StorageBackend, key: ObjectKey, there: Manifest, manifest: Manifest, known: Manifest | None
) -> bool:
    """Return whether `there` stays in place of `manifest`. Raises Outranked when `manifest` must not replace it."""
    if says_the_same(there, manifest):
        if there.rank >= manifest.rank:
            return True
        return known is not None and _is(there, known) and _is_there(store, key, there)
    if there.rank > manifest.rank:
        raise Outranked(
            f"{store.name}/{key} is of a newer attempt: token {there.rank}, ours is {manifest.rank}",
            store=store.name,
            key=key,
        )
    return not manifest.trusted and there.trusted and _is_there(store, key, there)


def _require(store: StorageBackend, manifest: Manifest, problems: Sequence[str]) -> None:
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise TransientStorageError(
            f"{store.name}: what was stored of {manifest.asset_id} is not there any more: {problems[0]}{more}"
        )


def mark_damaged(
    store: StorageBackend, key: ObjectKey, damage: Sequence[str], *, of: Manifest | None = None
) -> bool:
    """Mark the manifest at `key` as damaged so the asset is copied again; return whether it is marked now.

    No object is deleted: the old copy and its manifest stay until a new copy is verified. With `of`, the manifest in
    which the damage was found, a manifest that has replaced it since stays unmarked. An unreadable manifest is not
    marked; it counts as damaged anyway. Idempotent. Raises StorageError.
    """
    named = tuple(damage[:DAMAGE_NAMED])
    return _change(store, key, of, lambda manifest: manifest.model_copy(update={"damage": named})) is not None


def read_back(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> bool:
    """Read every object back and return whether all are right. When a second reading finds problems too, mark the
    manifest as damaged: by its sizes it would count as archived. Raises StorageError, also when it cannot be marked."""
    problems = read_twice(store, manifest)
    if problems:
        mark_damaged(store, key, problems, of=manifest)
    return not problems


def read_twice(
    store: StorageBackend, manifest: Manifest, *, between: Callable[[], None] = lambda: None
) -> Sequence[str]:
    """Read every object back, and once more if it is not right, for one bad answer is no damage; return the problems of
    the second reading. Raises StorageError."""
    if verify_contents(store, manifest, between=between).ok:
        return ()
    return verify_contents(store, manifest, between=between).problems


def clear_damage(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> Manifest | None:
    """Clear the damage mark of `manifest` and return the new manifest; None when it was replaced meanwhile.

    Only for a caller that has just read and verified all its objects. Raises StorageError.
    """
    whole = _change(store, key, manifest, lambda there: there.model_copy(update={"damage": None}))
    if whole is not None:
        log.warning("manifest_given_back", store=store.name, key=key, damage=manifest.damage)
    return whole


def damaged_settlement(
    asset_id: str,
    copies: Mapping[str, Sequence[str]],
    *,
    stored_bytes: int,
    stored_objects: int,
    note: str = "",
) -> Settlement:
    """Settle an asset as DAMAGED: neither saved nor lost; a whole copy repairs it, or a person. `copies`: problems by
    destination, none where the copy is whole."""
    whole = [name for name, problems in copies.items() if not problems]
    notes = [f"not whole at {name}: {_first(problems)}" for name, problems in copies.items() if problems]
    notes.append(f"whole at {', '.join(whole) or 'no destination'}")
    if note:
        notes.append(note)
    notes.append(f"restore what is damaged, then `archiver verify {asset_id}`")
    return Settlement(
        AssetState.DAMAGED,
        reason="; ".join(notes),
        stored_bytes=stored_bytes,
        stored_objects=stored_objects,
        copies={
            name: state for name, problems in copies.items() if (state := copy_state(problems)) is not None
        },
    )


def copy_state(problems: Sequence[str]) -> CopyState | None:
    """Return what a destination holds whose copy has these problems; None when it could not be read."""
    if not problems:
        return CopyState.WHOLE
    if problems[0].startswith(UNREAD):
        return None
    return CopyState.LACKING if problems[0] in (LACKING, MANIFEST_GONE) else CopyState.DAMAGED


def _first(problems: Sequence[str]) -> str:
    more = len(problems) - PROBLEMS_NAMED
    return ", ".join(problems[:PROBLEMS_NAMED]) + (f", and {more} more" if more > 0 else "")


def extend(store: StorageBackend, key: ObjectKey, manifest: Manifest, fuller: Manifest) -> bool:
    """Replace `manifest` by `fuller`, which lists more objects, and verify that all are there; False when it was
    replaced meanwhile. Raises StorageError."""
    _require(store, fuller, verify_listed(store, fuller).problems)
    lock_media(store, fuller)
    if _change(store, key, manifest, lambda _: fuller) is None:
        return False
    lock_manifest(store, key)
    if problems := verify_listed(store, fuller).problems:
        mark_damaged(store, key, problems, of=fuller)
        _require(store, fuller, problems)
    return True


def _change(
    store: StorageBackend, key: ObjectKey, of: Manifest | None, change: Callable[[Manifest], Manifest]
) -> Manifest | None:
    """Change the manifest at `key` if it is still `of` (None: whichever is there); None when there is none to change.
    Keeps its fencing token, so that a later commit replaces it."""
    for _ in range(RACES):
        found = find_manifest(store, key)
        if found is None or found.manifest is None or (of is not None and not _is(found.manifest, of)):
            return None
        changed = change(found.manifest)
        try:
            _replace(store, key, changed.to_bytes(), found)
        except ObjectChanged:
            continue
        return changed
    raise TransientStorageError(f"{store.name}/{key} is replaced again and again")


def committed_after_all(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """Like `committed`, but verify a damaged manifest by reading every object, and clear its damage if all are whole.

    For when the source can no longer replace the copy. Idempotent. Raises StorageError.
    """
    return committed(store, key) or _whole_after_all(store, key, trusted=True)


def kept_after_all(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """As `committed_after_all`, of a manifest with doubts."""
    return kept(store, key) or _whole_after_all(store, key, trusted=False)


def _whole_after_all(store: StorageBackend, key: ObjectKey, *, trusted: bool) -> Manifest | None:
    found = find_manifest(store, key)
    manifest = found.manifest if found else None
    if manifest is None or not manifest.damage or manifest.trusted is not trusted:
        return None
    return clear_damage(store, key, manifest) if verify_contents(store, manifest).ok else None


def accept(store: StorageBackend, key: ObjectKey, *, by: str, why: str, at: datetime) -> Manifest | None:
    """Remove the doubts from the manifest at `key`, which keeps who accepted them, when and why. Returns the manifest
    that is there now; None when none is whole, or it was replaced meanwhile. Idempotent. Raises StorageError."""
    if already := committed(store, key):
        return already
    manifest = kept(store, key)
    if manifest is None:
        return None
    accepted = {"by": by, "at": at.isoformat(), "why": why, "doubts": list(manifest.doubts or ())}
    update = {
        "schema_version": TRUSTED,
        "doubts": None,
        "fingerprint": None,
        "accepted": accepted,
        "objects": tuple(replace(item, doubt=None) for item in manifest.objects),
    }
    lock_media(store, manifest)
    accepted_now = _change(store, key, manifest, lambda there: there.model_copy(update=update))
    if accepted_now is not None:
        lock_manifest(store, key)
    return accepted_now


def _replace(
    store: StorageBackend, key: ObjectKey, data: bytes, found: StoredManifest | None, *, lock: bool = False
) -> None:
    """Raises ObjectChanged when something else than `found` is there."""
    spec = ObjectSpec(key, "application/json", len(data), lock=lock)
    replace_if(store, spec, data, crc32c(data), found.info if found else None)


def _is(one: Manifest, other: Manifest) -> bool:
    """Compare as written: one of them may not have been read from the store."""
    return one.to_bytes() == other.to_bytes()


def says_the_same(found: Manifest, manifest: Manifest) -> bool:
    """Whether `found` lists the same objects and doubts as `manifest` and is not marked as damaged. The files that an
    earlier version added of its own are ignored."""
    if found.damage or found.doubts != manifest.doubts:
        return False
    return (found.folder, _checksums(found)) == (manifest.folder, _checksums(manifest))


def _checksums(manifest: Manifest) -> dict[str, tuple[int, str]]:
    return {item.path: (item.size, item.crc32c) for item in manifest.objects if item.path not in OUR_FILES}
