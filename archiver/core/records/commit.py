"""The manifest as the commit: is a right one there, how it gets there, and how it is marked as damaged.

Every write is a compare-and-swap on the manifest that was read, and none replaces one with a higher fencing token
(docs/decisions/0008-fencing.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from archiver.core.errors import Outranked
from archiver.core.records.keys import OUR_FILES
from archiver.core.records.manifest import TRUSTED, Manifest, StoredManifest, find_manifest
from archiver.core.records.verification import STAT_UP_TO, check_contents, check_listed
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.conditional import replace_if
from storage_backends.errors import AccessDenied, ObjectChanged, TransientStorageError

log = structlog.get_logger(__name__)

DAMAGE_NAMED = 20  # problems named in a damaged manifest; `archiver verify` finds all of them
RACES = 10  # writers that may get in between, one after the other, before a write is given up for now


def committed(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """The manifest at `key` when it proves its asset archived: it has no doubts, is not marked as damaged, and every
    object it names is there with its size (and checksum, where the store tells). Else None. Raises StorageError."""
    return _listed(store, key, trusted=True)


def kept(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """The manifest at `key` when it has doubts and every object it names is there, as for `committed`. Such an asset
    is stored and quarantined, not archived. Else None. Raises StorageError."""
    return _listed(store, key, trusted=False)


@dataclass(frozen=True, slots=True)
class Look:
    """What is at a manifest's key: `manifest`, if one can be read, and whether it proves its asset archived."""

    manifest: Manifest | None
    proves: bool


def look_at(store: StorageBackend, key: ObjectKey) -> Look:
    """As `committed`, and the manifest that is there in any case. Raises StorageError."""
    manifest = _read(store, key)
    proves = manifest is not None and manifest.trusted and _is_there(store, key, manifest)
    return Look(manifest, proves)


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
    verified = check_listed(store, manifest)
    if not verified.ok:
        log.warning("manifest_contradicted", store=store.name, key=key, problems=verified.problems[:5])
    return verified.ok


def commit(store: StorageBackend, key: ObjectKey, manifest: Manifest, known: Manifest | None = None) -> None:
    """Write `manifest` as the commit of its attempt, and check afterwards that it and every object of it are there.

    Idempotent. Raises Outranked when the manifest of a newer attempt is there, unless it lists the very same objects;
    StorageError when a right one is not there afterwards. One that lists the same and is the `known` one, from before
    the attempt, stays. Any other of no higher token is replaced, though every size in it may still hold: ours is what
    was verified just now. One with doubts never replaces one that proves the asset archived. What is incomplete
    afterwards is marked as damaged.

    Requests for a new asset of up to STAT_UP_TO objects: two for the manifest and one for each object.
    """
    if len(manifest.objects) > STAT_UP_TO:  # a tree takes hours; fewer were stored a moment ago
        _require(store, manifest, check_listed(store, manifest).problems)
    there = _write(store, key, manifest, known)
    problems = check_listed(store, there).problems
    if problems:
        mark_damaged(store, key, problems, of=there)
        _require(store, there, problems)


def _write(store: StorageBackend, key: ObjectKey, manifest: Manifest, known: Manifest | None) -> Manifest:
    """The manifest that is there now: `manifest`, or what may stay in its place."""
    data = manifest.to_bytes()
    found: StoredManifest | None = None  # most often none is there: the first write is tried without a look
    for _ in range(RACES):
        there = found.manifest if found else None
        if there is not None and _stays(store, key, there, manifest, known):
            return there
        try:
            _replace(store, key, data, found)
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
    """Whether `there` need not be replaced by `manifest`. Raises Outranked when it must not be."""
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


def clear_damage(store: StorageBackend, key: ObjectKey, manifest: Manifest) -> Manifest | None:
    """Clear the damage mark of `manifest` and return the new manifest; None when it was replaced meanwhile.

    Only for a caller that has just read and verified all its objects. Raises StorageError.
    """
    whole = _change(store, key, manifest, lambda there: there.model_copy(update={"damage": None}))
    if whole is not None:
        log.warning("manifest_given_back", store=store.name, key=key, damage=manifest.damage)
    return whole


def extend(store: StorageBackend, key: ObjectKey, manifest: Manifest, fuller: Manifest) -> bool:
    """Replace `manifest` by `fuller`, which lists more objects, and check that all of them are there; False when it was
    replaced meanwhile. Raises StorageError."""
    _require(store, fuller, check_listed(store, fuller).problems)
    if _change(store, key, manifest, lambda _: fuller) is None:
        return False
    if problems := check_listed(store, fuller).problems:
        mark_damaged(store, key, problems, of=fuller)
        _require(store, fuller, problems)
    return True


def _change(
    store: StorageBackend, key: ObjectKey, of: Manifest | None, change: Callable[[Manifest], Manifest]
) -> Manifest | None:
    """Change the manifest at `key`, if it is still `of` (None: whichever is there). Its token stays: whoever commits
    later replaces it. None when there is none to change."""
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
    """As `committed_after_all`, of one with doubts."""
    return kept(store, key) or _whole_after_all(store, key, trusted=False)


def _whole_after_all(store: StorageBackend, key: ObjectKey, *, trusted: bool) -> Manifest | None:
    found = find_manifest(store, key)
    manifest = found.manifest if found else None
    if manifest is None or not manifest.damage or manifest.trusted is not trusted:
        return None
    return clear_damage(store, key, manifest) if check_contents(store, manifest).ok else None


def accept(store: StorageBackend, key: ObjectKey, *, by: str, why: str, at: datetime) -> Manifest | None:
    """Make the asset that is kept with doubts at `key` archived, because a person says so; the manifest keeps the
    doubts, who accepted them, when and why. The manifest as it is then; None when nothing is kept there whole, or when
    it was replaced meanwhile. Idempotent. Raises StorageError."""
    if right := committed(store, key):
        return right
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
    return _change(store, key, manifest, lambda there: there.model_copy(update=update))


def _replace(store: StorageBackend, key: ObjectKey, data: bytes, found: StoredManifest | None) -> None:
    """Raises ObjectChanged unless what is there is still what was `found`."""
    spec = ObjectSpec(key, "application/json", len(data))
    replace_if(store, spec, data, crc32c(data), found.info if found else None)


def _is(one: Manifest, other: Manifest) -> bool:
    """As they are written: one of them may not have been read from there."""
    return one.to_bytes() == other.to_bytes()


def says_the_same(found: Manifest, manifest: Manifest) -> bool:
    """Whether `found` is of the same objects as `manifest`, with the same doubts, and not marked as damaged. The record
    of its own that the version before stored beside them does not count."""
    if found.damage or found.doubts != manifest.doubts:
        return False
    return (found.folder, _proofs(found)) == (manifest.folder, _proofs(manifest))


def _proofs(manifest: Manifest) -> dict[str, tuple[int, str]]:
    return {item.path: (item.size, item.crc32c) for item in manifest.objects if item.path not in OUR_FILES}
