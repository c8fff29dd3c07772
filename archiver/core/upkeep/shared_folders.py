"""Find the folders of assets to be erased that hold something of others.

A manifest may say anything: of an asset whose id is that of a room it may name the folder of the room, and with another
template than today that may even look like a folder of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from archiver.core.records import keys, removal
from archiver.core.records.listing_together import Together
from archiver.core.records.removal import Targets
from archiver.ledger.base import Schedule
from archiver.ledger.models import REMOVED_STATES
from storage_backends.base import ObjectKey, StorageBackend

_SHORTEST_ID = 16
"""A folder in an asset's folder with a shorter name, such as `720p`, is none of an asset that the ledger does not know:
ids of 100ms have 24 to 36 characters. Spares listing every manifest for each HLS tree."""


@dataclass(frozen=True, slots=True)
class Other:
    """`asset`: the id of another asset that has something in `folder`, or has it."""

    folder: ObjectKey
    asset: str


class SharedFolders:
    """Of one run. Thread-safe."""

    def __init__(self, ledger: Schedule, destinations: Sequence[StorageBackend], key_template: str) -> None:
        self._ledger = ledger
        self._destinations = list(destinations)
        self._template = key_template
        self._lock = threading.Lock()
        self._manifests: frozenset[int] | None = None

    def find(
        self, wanted: Sequence[tuple[str, Sequence[ObjectKey]]], together: Together
    ) -> list[Other | None]:
        """Return for each asset id and its folders what they hold of another; None when that is nothing. One LIST for
        each destination, if all lie together. Raises StorageError, LedgerError."""
        found: list[Other | None] = [None] * len(wanted)
        asked = [{_folder_name(asset_id)} for asset_id, _ in wanted]

        def look(number: int, folder: ObjectKey, segments: Sequence[str]) -> None:
            if found[number] is None and (other := self._other(segments, asked[number])):
                found[number] = Other(folder, other)

        for number, (asset_id, folders) in enumerate(wanted):
            for folder in folders:
                templates = (self._template, keys.DEFAULT_TEMPLATE)
                if not any(keys.fits_template(asset_id, folder, each) for each in templates):
                    look(number, folder, keys.without_version(folder).split("/"))
        for store in self._destinations:
            removal.walk_all(
                store,
                [Targets(folders, ()) for _, folders in wanted],
                together,
                lambda number, folder, key: look(number, folder, key[len(folder) + 1 :].split("/")[:-1]),
            )
        return found

    def _other(self, segments: Sequence[str], asked: set[str]) -> str | None:
        """Return the first of `segments` that is a folder of an asset that the ledger knows, or that has a manifest."""
        for segment in segments:
            if segment in asked:
                continue
            asked.add(segment)
            other = keys.id_in_folder(segment)
            row = self._ledger.get(other) if other is not None else None
            if row is not None and row.state not in REMOVED_STATES:
                return other
            if row is None and len(segment) >= _SHORTEST_ID and hash(segment) in self._with_manifest():
                return other or segment
        return None

    def _with_manifest(self) -> frozenset[int]:
        """Hashes of the folder names of all assets that have a manifest, listed once: about 70 bytes each."""
        with self._lock:
            if self._manifests is None:
                self._manifests = frozenset(
                    hash(_folder_name_of(info.key))
                    for store in self._destinations
                    for info in store.list(keys.MANIFESTS)
                )
            return self._manifests


def _folder_name(asset_id: str) -> str:
    return _folder_name_of(keys.manifest_key(asset_id, None))


def _folder_name_of(manifest: str) -> str:
    return keys.record_name(manifest).removesuffix(".json")
