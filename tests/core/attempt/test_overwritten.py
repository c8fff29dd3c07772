"""A stale worker that compares what it wrote with the manifest that is there."""

from __future__ import annotations

import pytest

from archiver.core.attempt.overwritten import LOOKS, Written, mark_overwritten
from archiver.core.records import keys
from archiver.core.records.manifest import read_manifest
from storage_backends.base import ObjectKey
from storage_backends.errors import TransientStorageError
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at, put
from tests.core.examples import asset

KEY = keys.manifest_key(asset().id, asset().created_at)


class LosesAnswers(MemoryBackend):
    lost = 0

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        if self.lost:
            self.lost -= 1
            raise TransientStorageError("no answer")
        return super().read(key, start, length_bytes, if_match=if_match)


@pytest.mark.parametrize(("lost", "is_marked"), [(0, True), (1, True), (LOOKS - 1, True), (LOOKS, False)])
def test_a_lost_answer_does_not_leave_what_it_overwrote_to_the_scrub(lost: int, is_marked: bool) -> None:
    store = LosesAnswers("one")
    archive_at([store], asset())
    manifest = read_manifest(store, KEY)
    assert manifest is not None
    put(store, manifest.key_of(manifest.objects[0]), b"another version")
    ours = Written(KEY, manifest.folder, {manifest.objects[0].path}, {})
    store.lost = lost

    assert mark_overwritten([store], [ours], fence=10**18) is is_marked

    store.lost = 0
    after = read_manifest(store, KEY)
    assert after is not None
    assert bool(after.damage) is is_marked
