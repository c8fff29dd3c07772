"""`archiver verify`: do the destinations hold what their manifests say? Needs the buckets alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from archiving import keys
from archiving.commit import give_back
from archiving.errors import ManifestError
from archiving.manifest import read_manifest
from archiving.verification import check_contents, check_listed
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError


@dataclass(frozen=True, slots=True)
class Checked:
    """One asset at one destination. `problems` is empty when it is as its manifest says. `doubts`: what its manifest
    says against it; it is quarantined, not archived, though every byte may be there. `restored`: the manifest at `key`
    was marked as damaged, every byte is right again, and the mark was taken from it."""

    asset_id: str
    destination: str
    objects: int
    size_bytes: int
    read_bytes: int
    problems: tuple[str, ...]
    restored: bool = False
    key: ObjectKey | None = None
    doubts: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it is archived and whole here."""
        return not self.problems and not self.doubts


def verify(
    destinations: Sequence[StorageBackend],
    asset_ids: Sequence[str],
    *,
    quick: bool,
    found: Callable[[int], None] = lambda _count: None,
) -> Iterator[Checked]:
    """Each manifest of each destination (only those of `asset_ids`, when given), checked by reading every byte
    back, or with `quick` by listing alone. A named asset without a manifest is a problem. `found` is told how many
    there will be. Writes nothing but the manifest of a copy that was marked as damaged and is whole again. Raises
    StorageError when a destination cannot be read."""
    wanted = set(asset_ids)
    work: list[tuple[StorageBackend, str, ObjectKey | None]] = []
    for store in destinations:
        manifests = {
            keys.asset_id_of(info.key) or info.key: info.key
            for info in store.list(f"{keys.MANIFESTS_FOLDER}/")
            if info.key.endswith(".json")
        }
        chosen = wanted or set(manifests)
        work += [(store, asset_id, manifests.get(asset_id)) for asset_id in sorted(chosen)]
    found(len(work))
    for store, asset_id, key in work:
        yield _check(store, asset_id, key, quick=quick)


def _check(store: StorageBackend, asset_id: str, key: ObjectKey | None, *, quick: bool) -> Checked:
    if key is None:
        return Checked(asset_id, store.name, 0, 0, 0, ("no manifest: it is not archived here",))
    try:
        manifest = read_manifest(store, key)
    except ManifestError as error:
        return Checked(asset_id, store.name, 0, 0, 0, (str(error),))
    if manifest is None:
        return Checked(asset_id, store.name, 0, 0, 0, ("the manifest went away while it was looked at",))
    verified = check_listed(store, manifest) if quick else check_contents(store, manifest)
    problems, restored = verified.problems, False
    if verified.ok and manifest.damage:
        try:
            give_back(store, key, manifest)
            restored = True
        except StorageError as error:
            problems = (f"whole again, but still marked as damaged: {error}",)
    return Checked(
        manifest.asset_id,
        store.name,
        verified.objects,
        manifest.total_size,
        verified.read_bytes,
        problems,
        restored,
        key,
        manifest.doubts or (),
    )
