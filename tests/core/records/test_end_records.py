from __future__ import annotations

import json

import pytest

from archiver.core.deadlines import UNDATED
from archiver.core.judging import Scope, judge
from archiver.core.records import end_records, keys
from archiver.ledger.models import OPEN_STATES, REMOVED_STATES, SAFE_STATES, AssetState
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec
from storage_backends.errors import AccessDenied
from storage_backends.memory import MemoryBackend
from tests.core.archived import put
from tests.core.examples import NOW, RETENTION, asset

SEEN = judge(asset(), Scope(RETENTION))
KEY = keys.end_record_key(asset().id, asset().created_at)


def test_a_record_says_which_asset_ended_how_why_and_when() -> None:
    store = MemoryBackend("one")

    end_records.write([store], SEEN, AssetState.LOST, "gone", NOW)

    assert json.loads(store.read(KEY)) == {
        "schema": "archiver.end/1",
        "asset_id": asset().id,
        "type": "room-composite",
        "room_id": "room-1",
        "session_id": "session-1",
        "created_at": "2026-03-01T07:44:27.010516+00:00",
        "expires_at": "2026-03-16T07:44:27.010516+00:00",
        "state": "lost",
        "reason": "gone",
        "recorded_at": NOW.isoformat(),
    }


def test_a_later_end_replaces_the_earlier_one() -> None:
    store = MemoryBackend("one")
    end_records.write([store], SEEN, AssetState.QUARANTINED, "HTML", NOW)

    end_records.write([store], SEEN, AssetState.LOST, "gone", NOW)

    assert json.loads(store.read(KEY))["state"] == "lost"


def test_a_destination_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = MemoryBackend("one"), MemoryBackend("two")

    def refuse(_spec: ObjectSpec, _data: Buffer, _crc32c: int) -> ObjectInfo:
        raise AccessDenied("put: 403")

    monkeypatch.setattr(one, "put", refuse)

    end_records.write([one, two], SEEN, AssetState.LOST, "gone", NOW)

    assert two.stat(KEY) is not None


def test_every_end_that_is_neither_safe_nor_open_has_a_record() -> None:
    assert set(AssetState) - OPEN_STATES - SAFE_STATES - REMOVED_STATES == end_records.RECORDED_STATES


def test_a_record_of_an_older_version_or_a_newer_one_can_be_read() -> None:
    store = MemoryBackend("one")
    put(
        store,
        KEY,
        json.dumps({"schema": "archiver.end/9", "asset_id": "a", "state": "odd", "more": [1]}).encode(),
    )

    record = end_records.read(store, KEY)

    assert record is not None
    assert (record.state, record.reason, record.acknowledged) == ("odd", "", None)
    assert (record.seen.type, record.seen.expires_at, record.seen.created_at) == ("unknown", UNDATED, None)
