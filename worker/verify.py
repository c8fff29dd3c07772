"""`archiver verify`: do the destinations hold what their manifests, and the ledger, say?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from archiver.core.errors import ManifestError
from archiver.core.records import keys
from archiver.core.records.commit import clear_damage
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_contents, verify_listed
from archiver.ledger.base import Assets
from archiver.ledger.models import AssetState
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import ObjectCold, StorageError

STORED_STATES = (AssetState.ARCHIVED, AssetState.QUARANTINED)
EVERYTHING = "*"
"""In place of an asset id, for a destination that could not be listed."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One asset at one destination. `problems`: what is wrong with the copy. `doubts`: the doubts in its manifest; the
    asset is quarantined, not archived, even if every byte is there. `unchecked`: why it is unknown whether the copy is
    whole. `restored`: the manifest at `key` was marked as damaged, every byte is right again, and the mark was
    cleared."""

    asset_id: str
    destination: str
    objects: int = 0
    size_bytes: int = 0
    read_bytes: int = 0
    problems: tuple[str, ...] = ()
    restored: bool = False
    key: ObjectKey | None = None
    doubts: tuple[str, ...] = ()
    unchecked: str | None = None
    missing: bool = False  # the ledger calls it archived, and there is no manifest here

    @property
    def ok(self) -> bool:
        """Return whether the asset is archived and whole here, as far as it was checked."""
        return not self.problems and not self.doubts and self.unchecked is None


@dataclass(slots=True)
class Tally:
    """Totals. `copies`: those that were checked, without the `unchecked`."""

    copies: int = 0
    bad: int = 0
    missing: int = 0  # of `bad`: the ledger calls them archived, and they have no manifest
    doubted: int = 0
    unchecked: int = 0
    read_bytes: int = 0
    restored: set[ObjectKey] = field(default_factory=set)

    def add(self, checked: Checked) -> None:
        self.read_bytes += checked.read_bytes
        if checked.unchecked is not None and not checked.problems:
            self.unchecked += 1
        else:
            self.copies += 1
        self.bad += bool(checked.problems)
        self.missing += checked.missing
        self.doubted += bool(checked.doubts)
        if checked.restored and checked.key is not None:
            self.restored.add(checked.key)


def stored_by(ledger: Assets) -> Mapping[str, ObjectKey]:
    """The assets that the ledger calls stored, with the key of their manifest. About 250 bytes each. Raises
    LedgerError."""
    return {
        row.asset_id: keys.manifest_key(row.asset_id, row.created_at)
        for row in ledger.rows(STORED_STATES)
        # an earlier version quarantined assets of which nothing was stored
        if row.state is AssetState.ARCHIVED or row.stored_objects > 0
    }


def verify(
    destinations: Sequence[StorageBackend],
    asset_ids: Sequence[str],
    *,
    quick: bool,
    stored: Mapping[str, ObjectKey] | None = None,
    found: Callable[[int], None] = lambda _count: None,
) -> Iterator[Checked]:
    """Verify each manifest of each destination (only those of `asset_ids`, if given) by reading every byte back, or
    with `quick` by names and sizes. `stored` (see `stored_by`): assets in it that have no manifest are problems, and
    so are named assets without one; None: it is unknown what should be there.

    Calls `found` with the number of copies. An unreadable copy or destination does not end the run. Writes only the
    manifests of copies that were marked as damaged and are whole again."""
    wanted = set(asset_ids)
    expected = {id_: key for id_, key in (stored or {}).items() if not wanted or id_ in wanted}
    # of an id too long for a key its hash alone is in it
    hashed = {key: id_ for id_, key in expected.items() if keys.asset_id_of(key) is None}
    work: list[tuple[StorageBackend, str, ObjectKey | None]] = []
    away: list[Checked] = []
    for store in destinations:
        try:
            manifests = _manifests(store, hashed)
        except StorageError as error:
            reason = f"its manifests cannot be listed: {error}"
            away += [Checked(id_, store.name, unchecked=reason) for id_ in sorted(wanted) or [EVERYTHING]]
            continue
        # a list may lag behind
        unlisted = {id_: _if_there(store, key) for id_, key in expected.items() if id_ not in manifests}
        chosen: Iterable[str] = wanted or {*manifests, *expected}
        work += [(store, id_, manifests.get(id_) or unlisted.get(id_)) for id_ in sorted(chosen)]
    found(len(work) + len(away))
    yield from away
    for store, asset_id, key in work:
        if key is None:
            missing = asset_id in expected
            what = "the ledger calls it archived" if missing else "it is not archived here"
            yield Checked(asset_id, store.name, problems=(f"no manifest: {what}",), missing=missing)
        else:
            yield _check(store, asset_id, key, quick=quick)


def _manifests(store: StorageBackend, hashed: Mapping[ObjectKey, str]) -> dict[str, ObjectKey]:
    return {
        keys.asset_id_of(info.key) or hashed.get(info.key) or info.key: info.key
        for info in store.list(keys.MANIFESTS)
        if info.key.endswith(".json")
    }


def _if_there(store: StorageBackend, key: ObjectKey) -> ObjectKey | None:
    try:
        return key if store.stat(key) is not None else None
    except StorageError:
        return key  # the check reports why


def _check(store: StorageBackend, asset_id: str, key: ObjectKey, *, quick: bool) -> Checked:
    nothing = Checked(asset_id, store.name, key=key)
    try:
        manifest = read_manifest(store, key)
        if manifest is None:
            return replace(nothing, problems=("the manifest was deleted during the check",))
        return _compare(store, key, manifest, quick=quick)
    except ManifestError as error:
        return replace(nothing, problems=(str(error),))
    except ObjectCold as error:
        return replace(nothing, unchecked=f"its manifest is in a cold storage class: {error}")
    except StorageError as error:
        return replace(nothing, unchecked=f"it could not be read: {error}")


def _compare(store: StorageBackend, key: ObjectKey, manifest: Manifest, *, quick: bool) -> Checked:
    """Raises StorageError."""
    unchecked = None
    try:
        verified = verify_listed(store, manifest) if quick else verify_contents(store, manifest)
    except ObjectCold:
        verified = verify_listed(store, manifest)
        unchecked = (
            "it is in a cold storage class: only names and sizes were compared; restore it to read it back"
        )
    problems, restored = verified.problems, False
    if verified.ok and manifest.damage and unchecked is None:
        try:
            restored = clear_damage(store, key, manifest) is not None
        except StorageError as error:
            problems = (f"whole again, but still marked as damaged: {error}",)
    return Checked(
        asset_id=manifest.asset_id,
        destination=store.name,
        objects=verified.objects,
        size_bytes=manifest.total_size,
        read_bytes=verified.read_bytes,
        problems=problems,
        restored=restored,
        key=key,
        doubts=manifest.doubts or (),
        unchecked=unchecked,
    )
