"""`archiver verify`: do the destinations hold what their manifests, and the ledger, say?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from archiver.core.errors import ManifestError
from archiver.core.records import keys
from archiver.core.records.check_records import Records, read_records
from archiver.core.records.commit import clear_damage
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_in_full, verify_listed
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
    cold: bool = False  # in a cold storage class: compared by what the store says of it, and not read
    last_read: datetime | None = None  # of a cold copy, by the scrub; None: it is not known to have been read

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
    away: int = 0  # of `unchecked`: whole destinations
    read_bytes: int = 0
    cold: int = 0
    coldest_read: datetime | None = None  # the oldest last read of a cold copy
    never_read: int = 0  # of the cold ones
    restored: set[ObjectKey] = field(default_factory=set)
    destinations: set[str] = field(default_factory=set)  # of which anything is known

    def add(self, checked: Checked) -> None:
        self.destinations.add(checked.destination)
        self.read_bytes += checked.read_bytes
        if checked.cold:
            self.cold += 1
            self.never_read += checked.last_read is None
            reads = [each for each in (self.coldest_read, checked.last_read) if each is not None]
            self.coldest_read = min(reads, default=None)
        if checked.unchecked is not None and not checked.problems:
            self.unchecked += 1
            self.away += checked.asset_id == EVERYTHING
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
    unknown: Mapping[str, str] | None = None,
    found: Callable[[int], None] = lambda _count: None,
) -> Iterator[Checked]:
    """Verify each manifest of each destination (only those of `asset_ids`, if given) by reading every byte back, or
    with `quick` by names and sizes. `stored` (see `stored_by`): assets in it that have no manifest are problems, and
    so are named assets without one; None: it is unknown what should be there. `unknown`: destinations that are not
    the ones that the ledger knows, and why: nothing follows from what they hold.

    Calls `found` with the number of copies. An unreadable copy or destination does not end the run. Writes only the
    manifests of copies that were marked as damaged and are whole again."""
    wanted = set(asset_ids)
    expected = {id_: key for id_, key in (stored or {}).items() if not wanted or id_ in wanted}
    # of an id too long for a key its hash alone is in it
    hashed = {key: id_ for id_, key in expected.items() if keys.asset_id_of(key) is None}
    work: list[tuple[StorageBackend, str, ObjectKey | None]] = []
    away: list[Checked] = []
    for store in destinations:
        reason = (unknown or {}).get(store.name)
        try:
            manifests = _manifests(store, hashed) if reason is None else {}
        except StorageError as error:
            reason = f"its manifests cannot be listed: {error}"
        if reason is not None:
            away += [Checked(id_, store.name, unchecked=reason) for id_ in sorted(wanted) or [EVERYTHING]]
            continue
        # a list may lag behind
        unlisted = {id_: _if_there(store, key) for id_, key in expected.items() if id_ not in manifests}
        chosen: Iterable[str] = wanted or {*manifests, *expected}
        work += [(store, id_, manifests.get(id_) or unlisted.get(id_)) for id_ in sorted(chosen)]
    found(len(work) + len(away))
    yield from away
    reads = _LastReads()
    for store, asset_id, key in work:
        if key is None:
            missing = asset_id in expected
            what = "the ledger calls it archived" if missing else "it is not archived here"
            yield Checked(asset_id, store.name, problems=(f"no manifest: {what}",), missing=missing)
        else:
            checked = _check(store, asset_id, key, quick=quick)
            yield replace(checked, last_read=reads.of(store, key)) if checked.cold else checked


class _LastReads:
    """When copies were last read in full, by the records of the scrub, which are read once for each destination that
    has a cold copy."""

    def __init__(self) -> None:
        self._records: dict[str, Records] = {}

    def of(self, store: StorageBackend, key: ObjectKey) -> datetime | None:
        if store.name not in self._records:
            try:
                self._records[store.name] = read_records(store, datetime.now(UTC))
            except StorageError:
                self._records[store.name] = Records()
        check = self._records[store.name].checks.get(key)
        return datetime.fromtimestamp(check.read_at, UTC) if check is not None and check.read_at else None


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
    verified = verify_listed(store, manifest) if quick else verify_in_full(store, manifest)
    problems, restored = verified.problems, False
    if verified.ok and manifest.damage and not verified.cold:
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
        cold=verified.cold > 0,
    )
