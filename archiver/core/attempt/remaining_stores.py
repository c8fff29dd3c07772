"""The stores that still take part in a copy, and the objects that all of them hold already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from archiver.core.errors import DestinationsFailed
from archiver.core.records.manifest import Manifest, ManifestObject
from archiver.ledger.models import StoredObject
from storage_backends.base import ObjectInfo, StorageBackend
from storage_backends.errors import StorageError


class RemainingStores:
    """`alive`: the stores that have not failed, in order; empty until `drop` is called. `failed`: the others."""

    def __init__(
        self,
        stores: Sequence[StorageBackend],
        folder: str,
        manifests: Mapping[str, Manifest],
        recorded: Callable[[str], Mapping[str, StoredObject]],
    ) -> None:
        """`recorded`: what the ledger knows to be stored at the store of that name. One LIST per store."""
        self._stores = list(stores)
        self.alive: list[StorageBackend] = []
        self.failed: dict[str, StorageError] = {}
        self._known = {
            store.name: self._held(store, f"{folder}/", manifests.get(store.name), recorded(store.name))
            for store in stores
        }
        self._whole: dict[str, StoredObject] = {}

    def whole(self, path: str) -> StoredObject | None:
        """Return what all of them have at `path`, if it is the same."""
        return self._whole.get(path)

    def forget(self, path: str) -> None:
        """Forget what they had at `path`: it was written over."""
        for records in (*self._known.values(), self._whole):
            records.pop(path, None)

    def drop(self, failed: Mapping[str, StorageError]) -> None:
        """Go on without these. Raises DestinationsFailed if none is left."""
        self.failed.update(failed)
        self.alive = [store for store in self._stores if store.name not in self.failed]
        if not self.alive:
            raise DestinationsFailed(self.failed)
        first, *others = [self._known[store.name] for store in self.alive]
        self._whole = {
            path: record
            for path, record in first.items()
            if all(_same(other.get(path), record) for other in others)
        }

    def _held(
        self,
        store: StorageBackend,
        prefix: str,
        manifest: Manifest | None,
        recorded: Mapping[str, StoredObject],
    ) -> dict[str, StoredObject]:
        """Return what an earlier attempt stored and the store still lists with its size."""
        known: dict[str, StoredObject] = {}
        if manifest is not None and not manifest.damage:
            known.update({item.path: _stored_object(item) for item in manifest.objects})
        known.update(recorded)
        if not known:
            return {}
        try:
            listed = {info.key[len(prefix) :]: info for info in store.list(prefix)}
        except StorageError as error:
            self.failed[store.name] = error
            return {}
        return {path: record for path, record in known.items() if _holds(listed.get(path), record)}


def _holds(info: ObjectInfo | None, record: StoredObject) -> bool:
    """Return whether the store still has what was stored, by its list."""
    if info is None or info.size_bytes != record.size_bytes:
        return False
    return info.crc32c is None or info.crc32c == record.crc32c


def _same(one: StoredObject | None, other: StoredObject) -> bool:
    """Return whether they are the same bytes of the same source; ledger and manifest may tell the rest differently."""
    return one is not None and (one.size_bytes, one.crc32c, one.source_etag) == (
        other.size_bytes,
        other.crc32c,
        other.source_etag,
    )


def _stored_object(item: ManifestObject) -> StoredObject:
    return StoredObject(item.path, item.size, item.crc, item.content_type, item.source_etag)
