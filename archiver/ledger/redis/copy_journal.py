"""Journal of unfinished copies in Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from archiver.ledger.errors import LeaseLost
from archiver.ledger.models import COPY_LIFETIME, Lease, OpenUpload, StoredObject
from archiver.ledger.redis.calls import ScriptCalls
from archiver.ledger.redis.copy_records import (
    read_object,
    read_upload,
    write_object,
    write_part,
    write_upload,
)
from archiver.ledger.redis.values import milliseconds, to_json


class RedisCopyJournal(ScriptCalls):
    """`ledger.base.CopyJournal`."""

    def stored_objects(self, asset_id: str, destination: str, version: str) -> Mapping[str, StoredObject]:
        kept = self._hash("stored_objects", _stored_key(asset_id, destination))
        if kept.pop("version", None) != version:
            return {}
        read = (read_object(path[1:], record) for path, record in kept.items() if path.startswith("/"))
        return {one.path: one for one in read if one is not None}

    def add_stored(
        self, lease: Lease, destination: str, version: str, objects: Sequence[StoredObject]
    ) -> None:
        fields = {f"/{one.path}": write_object(one) for one in objects}
        self._write(lease, _stored_key(lease.asset_id, destination), "version", version, fields)

    def load_upload(self, asset_id: str, destination: str, key: str) -> OpenUpload | None:
        kept = self._hash("load_upload", _upload_key(asset_id, destination, key))
        return read_upload(kept, self._seal.unseal)

    def save_upload(self, lease: Lease, destination: str, key: str, upload: OpenUpload) -> None:
        fields = write_upload(upload, self._seal.seal)
        self._write(lease, _upload_key(lease.asset_id, destination, key), "new", "", fields)

    def add_part(
        self, lease: Lease, destination: str, key: str, number: int, part: tuple[int, int, str]
    ) -> None:
        fields = {str(number): write_part(part)}
        self._write(lease, _upload_key(lease.asset_id, destination, key), "add", "", fields)

    def forget_upload(self, asset_id: str, destination: str, key: str) -> None:
        self._run("forget_upload", asset_id, _upload_key(asset_id, destination, key))

    def _write(self, lease: Lease, key: str, mode: str, version: str, fields: Mapping[str, str]) -> None:
        lifetime = milliseconds(COPY_LIFETIME)
        pairs = (argument for pair in fields.items() for argument in pair)
        if not self._run(
            "write_work", lease.asset_id, lease.fence, key, lifetime, mode, version, len(fields), *pairs
        ):
            raise LeaseLost.of(lease)


def _stored_key(asset_id: str, destination: str) -> str:
    return "stored:" + to_json([asset_id, destination])  # JSON, since either may hold any separator


def _upload_key(asset_id: str, destination: str, key: str) -> str:
    return "upload:" + to_json([asset_id, destination, key])
