from __future__ import annotations

from archiver.core.records.labels import labels_in, labels_of
from archiver.core.records.manifest import read_manifest
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at
from tests.core.examples import asset


def test_a_manifest_has_the_labels_of_its_asset() -> None:
    store, one = MemoryBackend("one"), asset()
    manifest = read_manifest(store, archive_at([store], one))

    assert manifest is not None
    assert labels_in(manifest).items() <= labels_of(one).items()
    assert {"asset", "type"} <= labels_in(manifest).keys()
