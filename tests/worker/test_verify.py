"""`archiver verify` of a copy that was marked as damaged."""

from __future__ import annotations

import pytest

from archiver.core.records.commit import committed, mark_damaged
from storage_backends.base import ObjectKey
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.archived import archive_at
from tests.core.examples import asset
from worker.verify import verify


@pytest.fixture
def store() -> MemoryBackend:
    return MemoryBackend("one")


@pytest.fixture
def key(store: MemoryBackend) -> ObjectKey:
    """Of a manifest marked as damaged, though all that it names is right by now."""
    key = archive_at([store], asset())
    mark_damaged(store, key, ["movie.mp4: missing"])
    return key


def test_a_copy_that_is_whole_again_proves_its_asset_again(store: MemoryBackend, key: ObjectKey) -> None:
    (checked,) = verify([store], [asset().id], quick=False)

    assert checked.ok
    assert (checked.restored, checked.key) == (True, key)
    assert committed(store, key)


def test_names_and_sizes_are_no_reason_to_take_the_mark_away(store: MemoryBackend, key: ObjectKey) -> None:
    (checked,) = verify([store], [asset().id], quick=True)

    assert not checked.ok
    assert not checked.restored
    assert committed(store, key) is None


def test_a_mark_that_cannot_be_taken_away_is_a_problem_and_no_end(
    store: MemoryBackend, key: ObjectKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_put: object) -> None:
        raise AccessDenied("put: 403")

    monkeypatch.setattr(store, "put", refused)

    (checked,) = verify([store], [asset().id], quick=False)

    assert checked.problems == ("whole again, but still marked as damaged: put: 403",)
    assert not checked.restored


def test_nothing_is_written_where_nothing_was_marked(
    store: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_at([store], asset())
    written: list[object] = []
    monkeypatch.setattr(store, "put", lambda *put: written.append(put))

    (checked,) = verify([store], [], quick=False)

    assert (checked.ok, checked.restored, written) == (True, False, [])


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_stored_with_doubts_is_whole_and_yet_not_archived(store: MemoryBackend, quick: bool) -> None:
    archive_at([store], asset(), doubts=("s7.ts: it is missing at the source (404 or 410)",))

    (checked,) = verify([store], [asset().id], quick=quick)

    assert checked.problems == ()
    assert checked.doubts == ("s7.ts: it is missing at the source (404 or 410)",)
    assert not checked.ok
