"""Archived assets to test with: a manifest and its objects at stores in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.records.manifest import Manifest, ManifestObject, new_manifest, read_manifest
from archiver.hms.models import Asset
from archiver.ledger.base import Ledger
from archiver.ledger.models import AssetState, Settlement
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend, object_key
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION

FILES = {"movie.mp4": b"m" * 100, "asset.json": b"{}"}


def put(store: StorageBackend, key: str, data: bytes) -> None:
    store.put(ObjectSpec(object_key(key), "video/mp4", len(data)), data, crc32c(data))


def manifest_of(
    asset: Asset, files: dict[str, bytes] | None = None, doubts: tuple[str, ...] = ()
) -> Manifest:
    return new_manifest(
        asset,
        folder=f"recordings/{keys.record_name(keys.manifest_key(asset.id, None)).removesuffix('.json')}",
        form="file",
        version="v1",
        objects=tuple(
            ManifestObject(path, len(data), f"{crc32c(data):08x}", "video/mp4")
            for path, data in (files or FILES).items()
        ),
        warnings=(),
        facts={},
        now=NOW,
        archiver_version="test",
        doubts=doubts,
        fingerprint="found" if doubts else None,
    )


def archive_at(
    stores: Sequence[StorageBackend],
    asset: Asset,
    files: dict[str, bytes] | None = None,
    doubts: tuple[str, ...] = (),
) -> ObjectKey:
    """Objects and manifest at each; the key of the manifest. With `doubts` they are kept, not archived."""
    manifest = manifest_of(asset, files, doubts)
    key = keys.manifest_key(asset.id, asset.created_at)
    for store in stores:
        for path, data in (files or FILES).items():
            put(store, f"{manifest.folder}/{path}", data)
        put(store, key, manifest.to_bytes())
    return key


def enter(
    ledger: Ledger, asset: Asset, state: AssetState = AssetState.ARCHIVED, reason: str | None = None
) -> None:
    """The asset in the ledger, in this state."""
    seen = judge(asset, Scope(RETENTION))
    ledger.discover([seen])
    if state is AssetState.DISCOVERED:
        return
    lease = ledger.lease(asset.id, "test", timedelta(minutes=2))
    assert lease is not None
    if state is not AssetState.RUNNING:
        ledger.settle(
            lease,
            seen,
            Settlement(
                state,
                reason=reason,
                stored_objects=2 if state in (AssetState.ARCHIVED, AssetState.QUARANTINED) else 0,
                delay=timedelta(minutes=1) if state is AssetState.WAITING else None,
            ),
        )


def flip_a_bit(store: MemoryBackend, manifest_key: ObjectKey) -> Callable[[], None]:
    """Change one byte of an asset's first object, and keep its size and the checksum that the store tells. Return what
    repairs it."""
    manifest = read_manifest(store, manifest_key)
    assert manifest is not None
    key = manifest.key_of(manifest.objects[0])
    whole = store.store.objects[key]
    store.store.objects[key] = replace(whole, data=bytes([whole.data[0] ^ 1]) + whole.data[1:])

    def repair() -> None:
        store.store.objects[key] = whole

    return repair
