"""Journal of unfinished copies in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from archiver.ledger.memory.state import State, synchronized
from archiver.ledger.models import COPY_LIFETIME, Lease, OpenUpload, StoredObject


class MemoryCopyJournal(State):
    """`ledger.base.CopyJournal`."""

    @synchronized
    def stored_objects(self, asset_id: str, destination: str, version: str) -> Mapping[str, StoredObject]:
        ends, of, objects = self._stored.get((asset_id, destination), (self._clock(), version, {}))
        return dict(objects) if of == version and ends > self._clock() else {}

    @synchronized
    def add_stored(
        self, lease: Lease, destination: str, version: str, objects: Sequence[StoredObject]
    ) -> None:
        self._check(lease)
        kept = dict(self.stored_objects(lease.asset_id, destination, version))
        kept.update({one.path: one for one in objects})
        self._stored[lease.asset_id, destination] = (self._clock() + COPY_LIFETIME, version, kept)

    @synchronized
    def load_upload(self, asset_id: str, destination: str, key: str) -> OpenUpload | None:
        ends, upload = self._uploads.get((asset_id, destination, key), (None, None))
        return upload if ends and ends > self._clock() else None

    @synchronized
    def save_upload(self, lease: Lease, destination: str, key: str, upload: OpenUpload) -> None:
        self._check(lease)
        kept = replace(upload, parts=dict(upload.parts))
        self._uploads[lease.asset_id, destination, key] = (self._clock() + COPY_LIFETIME, kept)

    @synchronized
    def add_part(
        self, lease: Lease, destination: str, key: str, number: int, part: tuple[int, int, str]
    ) -> None:
        self._check(lease)
        upload = self.load_upload(lease.asset_id, destination, key)
        if upload:
            self.save_upload(lease, destination, key, replace(upload, parts={**upload.parts, number: part}))

    @synchronized
    def forget_upload(self, asset_id: str, destination: str, key: str) -> None:
        self._uploads.pop((asset_id, destination, key), None)
