"""A deploy in the middle of a copy: records that another version wrote, or that nobody can read, cost at most the
bytes they are about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from archiver.ledger.models import AssetState, Lease, OpenUpload, Progress, Seen, StoredObject
from tests.contracts.ledger_contract import START
from tests.ledger.harnesses import RedisHarness

ASSET, STORE, KEY = "asset-1", "s3://bucket", "asset-1/video.mp4"
UPLOAD = OpenUpload("token", 300, 100, '"v1"', {1: (100, 11, "one"), 2: (100, 22, "two")})
OBJECT = StoredObject("a.ts", 10, 5, "video/mp2t", '"e"')
UNREADABLE = ["", "{", "null", "7", "[]", "[1]", '["x","y","z","w"]', '{"size":100}', "[null,null,null,null]"]


@pytest.fixture
def harness(redis_url: str) -> Iterator[RedisHarness]:
    harness = RedisHarness(redis_url)
    try:
        yield harness
    finally:
        harness.ledger.close()
        harness.side.close()


@pytest.fixture
def lease(harness: RedisHarness) -> Lease:
    seen = Seen(ASSET, "room-composite", START + timedelta(days=10), AssetState.DISCOVERED)
    harness.ledger.discover([seen])
    lease = harness.ledger.lease(ASSET, "old", timedelta(minutes=2))
    assert lease
    return lease


def the_hash(harness: RedisHarness, kind: str) -> str:
    (key,) = harness.side.scan_iter(f"archiver:{kind}:*", count=1000)
    return str(key)


def grown(word: str) -> str:
    """As a version would write it that knows more."""
    return json.dumps([*json.loads(word), {"new": 1}, 7])


def test_an_upload_recorded_by_a_newer_version_is_resumed(harness: RedisHarness, lease: Lease) -> None:
    harness.ledger.save_upload(lease, STORE, KEY, UPLOAD)
    key = the_hash(harness, "upload")
    for name, word in harness.side.hgetall(key).items():
        harness.side.hset(key, str(name), grown(str(word)))
    harness.side.hset(key, "begun_by", "version 9")

    assert harness.ledger.load_upload(ASSET, STORE, KEY) == UPLOAD


@pytest.mark.parametrize("word", UNREADABLE)
def test_an_upload_that_cannot_be_read_is_none(harness: RedisHarness, lease: Lease, word: str) -> None:
    harness.ledger.save_upload(lease, STORE, KEY, UPLOAD)
    harness.side.hset(the_hash(harness, "upload"), "upload", word)

    assert harness.ledger.load_upload(ASSET, STORE, KEY) is None

    harness.ledger.save_upload(lease, STORE, KEY, UPLOAD)
    assert harness.ledger.load_upload(ASSET, STORE, KEY) == UPLOAD


@pytest.mark.parametrize("word", UNREADABLE)
def test_a_part_that_cannot_be_read_is_one_part_less(harness: RedisHarness, lease: Lease, word: str) -> None:
    harness.ledger.save_upload(lease, STORE, KEY, UPLOAD)
    harness.side.hset(the_hash(harness, "upload"), "1", word)

    found = harness.ledger.load_upload(ASSET, STORE, KEY)

    assert found
    assert found.parts == {2: (100, 22, "two")}


def test_objects_noted_by_a_version_that_knows_more_are_known(harness: RedisHarness, lease: Lease) -> None:
    harness.ledger.add_stored(lease, STORE, "v1", [OBJECT])
    key = the_hash(harness, "stored")
    harness.side.hset(key, "/a.ts", grown(str(harness.side.hget(key, "/a.ts"))))
    harness.side.hset(key, "made_by", "version 9")

    assert harness.ledger.stored_objects(ASSET, STORE, "v1") == {"a.ts": OBJECT}


@pytest.mark.parametrize("word", UNREADABLE)
def test_an_object_that_cannot_be_read_is_one_object_less(
    harness: RedisHarness, lease: Lease, word: str
) -> None:
    other = StoredObject("b.ts", 20, 6)
    harness.ledger.add_stored(lease, STORE, "v1", [OBJECT, other])
    harness.side.hset(the_hash(harness, "stored"), "/a.ts", word)

    assert harness.ledger.stored_objects(ASSET, STORE, "v1") == {"b.ts": other}


def test_progress_reported_by_another_version_does_not_break_status(harness: RedisHarness) -> None:
    ours = Progress("asset-1", "room-vod", 1, 2, 3, "a.ts")
    harness.ledger.report(ours)
    reported = str(harness.side.hget("archiver:progress", "asset-1"))
    end, fact = reported.split("{", 1)
    harness.side.hset("archiver:progress", "asset-2", f'{end}{{"speed":5,{fact}')
    harness.side.hset("archiver:progress", "asset-3", f'{end}{{"asset_id":"asset-3"}}')

    assert harness.ledger.progress() == [ours, ours]
