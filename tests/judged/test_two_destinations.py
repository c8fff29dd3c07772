"""Two destinations, one of which fails half-way: what each manifest lists is there, and stays as it is listed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.core.records import keys
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_contents
from archiver.ledger.models import OPEN_STATES, AssetState
from storage_backends.base import ObjectInfo, ObjectSpec
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.contents.origin import Origin
from tests.judged.harness import Harness
from tests.judged.test_trees import drop, tree

QUARANTINED = AssetState.QUARANTINED


class Store(MemoryBackend):
    """Takes `left` more objects, then none. No object that its manifest lists is ever replaced by another."""

    left: int | None = None

    def _publish(self, spec: ObjectSpec, data: bytes, crc32c: int, upload_id: str) -> ObjectInfo:
        if self.left == 0:
            raise TransientStorageError("the disk is full")
        self.left = None if self.left is None else self.left - 1
        for key, stored in self.store.objects.items():
            if key.startswith("manifests/"):
                manifest = Manifest.model_validate_json(stored.data)
                for item in manifest.objects:
                    same = (item.size, item.crc) == (len(data), crc32c)
                    assert manifest.key_of(item) != spec.key or same, f"{spec.key} is overwritten"
        return super()._publish(spec, data, crc32c, upload_id)


@pytest.mark.parametrize("left", range(14))
def test_a_destination_that_failed_half_way_gets_all_that_its_manifest_lists(left: int) -> None:
    files = tree()
    drop("low/s1.ts")(files)
    stores = [Store("one"), Store("two")]
    with Origin({f"/v/{name}": body for name, body in files.items()}) as origin:
        harness = Harness(origin, "/v/master.m3u8", type="room-vod", stores=stores)
        stores[1].left = left
        for _ in range(4):
            harness.clock.advance(timedelta(days=1))
            harness.attempt()
        stores[1].left = None
        while harness.row.state in OPEN_STATES:
            harness.clock.advance(timedelta(days=1))
            harness.attempt()

    assert harness.row.state is QUARANTINED
    for store in stores:
        manifest = read_manifest(store, keys.manifest_key(harness.asset.id, harness.asset.created_at))
        assert manifest
        assert verify_contents(store, manifest).ok
        assert {item.path for item in manifest.objects} == set(files)
    harness.close()
