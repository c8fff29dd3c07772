"""Makes the request for an item's copy. What a manifest of the folder lists is not replaced by other content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from archiver.core.attempt.tolerant_checks import Tolerant, TolerantStructure
from archiver.core.contents.base import Item
from archiver.core.errors import WouldOverwrite
from archiver.core.records.manifest import Manifest
from archiver.ledger.models import StoredObject
from archiver.transfer.base import CopyRequest, KnownCopy
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, object_key


class ItemRequests:
    def __init__(
        self, folder: str, manifests: Mapping[str, Manifest], labels: Mapping[str, str] | None = None
    ) -> None:
        """`manifests`: by store, the whole ones of `folder`. `labels`: see `records.labels`."""
        self._folder = folder
        self._labels = labels or {}
        self._listed = {item.path: item for manifest in manifests.values() for item in manifest.objects}
        self.doubted = {path: item.doubt for path, item in self._listed.items() if item.doubt}

    def key(self, path: str) -> ObjectKey:
        return object_key(f"{self._folder}/{path}")

    def is_listed(self, path: str) -> bool:
        return path in self._listed

    def request(self, item: Item, known: StoredObject | None, tolerant: Tolerant | None) -> CopyRequest:
        """Return the request. `known`: the copy that the stores have. Raises WouldOverwrite when a manifest lists other
        content; what it lists damaged is written again."""
        structure = item.structure
        request = CopyRequest(
            key=self.key(item.path),
            content_type=item.content_type,
            check=tolerant.check(item.check) if tolerant and item.check else item.check,
            size_bytes=item.size_bytes,
            crc32c=item.crc32c if item.data is None else crc32c(item.data),
            likely_bytes=item.api_size_bytes,
            labels=self._labels,
            structure=TolerantStructure(structure, tolerant) if tolerant and structure else structure,
            known=self._known_copy(item, known) if known else None,
        )
        listed = self._listed.get(item.path)
        if listed is None:
            return request
        if item.data is not None and (len(item.data), request.crc32c) != (listed.size, listed.crc):
            raise WouldOverwrite(item.path)
        if request.size_bytes not in (None, listed.size) or request.crc32c not in (None, listed.crc):
            raise WouldOverwrite(item.path)
        return replace(request, size_bytes=listed.size, crc32c=listed.crc)

    def _known_copy(self, item: Item, known: StoredObject) -> KnownCopy:
        """A weak ETag counts for what a manifest lists, or sources that have only weak ones would be read every day."""
        return KnownCopy(
            known.size_bytes, known.crc32c, known.source_etag, weak_counts=item.path in self._listed
        )
