"""A deploy in the middle of a copy: records that another version wrote, or that nobody can read, cost at most the
bytes they are about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from archiver.ledger.models import AssetState, Lease, OpenUpload, Progress, Seen, StoredObject
from tests.contracts.ledger_contract import START
from tests.ledger.worlds import RedisWorld

ASSET, STORE, KEY = "asset-1", "s3://bucket", "asset-1/video.mp4"
UPLOAD = OpenUpload("token", 300, 100, '"v1"', {1: (100, 11, "one"), 2: (100, 22, "two")})
OBJECT = StoredObject("a.ts", 10, 5, "video/mp2t", '"e"')
UNREADABLE = ["", "{", "null", "7", "[]", "[1]", '["x","y","z","w"]', '{"size":100}', "[null,null,null,null]"]


@pytest.fixture
def world(redis_url: str) -> Iterator[RedisWorld]:
    world = RedisWorld(redis_url)
    try:
        yield world
    finally:
        world.ledger.close()
        world.side.close()


@pytest.fixture
def lease(world: RedisWorld) -> Lease:
    seen = Seen(ASSET, "room-composite", START + timedelta(days=10), AssetState.DISCOVERED)
    world.ledger.discover([seen])
    lease = world.ledger.lease(ASSET, "old", timedelta(minutes=2))
    assert lease
    return lease


def the_hash(world: RedisWorld, kind: str) -> str:
    (key,) = world.side.scan_iter(f"archiver:{kind}:*", count=1000)
    return str(key)


def grown(word: str) -> str:
    """As a version would write it that knows more."""
    return json.dumps([*json.loads(word), {"new": 1}, 7])


def test_an_upload_noted_by_a_version_that_knows_more_is_gone_on_with(
    world: RedisWorld, lease: Lease
) -> None:
    world.ledger.save_upload(lease, STORE, KEY, UPLOAD)
    key = the_hash(world, "upload")
    for name, word in world.side.hgetall(key).items():
        world.side.hset(key, str(name), grown(str(word)))
    world.side.hset(key, "begun_by", "version 9")

    assert world.ledger.load_upload(ASSET, STORE, KEY) == UPLOAD


@pytest.mark.parametrize("word", UNREADABLE)
def test_an_upload_that_cannot_be_read_is_none(world: RedisWorld, lease: Lease, word: str) -> None:
    world.ledger.save_upload(lease, STORE, KEY, UPLOAD)
    world.side.hset(the_hash(world, "upload"), "upload", word)

    assert world.ledger.load_upload(ASSET, STORE, KEY) is None

    world.ledger.save_upload(lease, STORE, KEY, UPLOAD)
    assert world.ledger.load_upload(ASSET, STORE, KEY) == UPLOAD


@pytest.mark.parametrize("word", UNREADABLE)
def test_a_part_that_cannot_be_read_is_one_part_less(world: RedisWorld, lease: Lease, word: str) -> None:
    world.ledger.save_upload(lease, STORE, KEY, UPLOAD)
    world.side.hset(the_hash(world, "upload"), "1", word)

    found = world.ledger.load_upload(ASSET, STORE, KEY)

    assert found
    assert found.parts == {2: (100, 22, "two")}


def test_objects_noted_by_a_version_that_knows_more_are_known(world: RedisWorld, lease: Lease) -> None:
    world.ledger.add_stored(lease, STORE, "v1", [OBJECT])
    key = the_hash(world, "stored")
    world.side.hset(key, "/a.ts", grown(str(world.side.hget(key, "/a.ts"))))
    world.side.hset(key, "made_by", "version 9")

    assert world.ledger.stored_objects(ASSET, STORE, "v1") == {"a.ts": OBJECT}


@pytest.mark.parametrize("word", UNREADABLE)
def test_an_object_that_cannot_be_read_is_one_object_less(world: RedisWorld, lease: Lease, word: str) -> None:
    other = StoredObject("b.ts", 20, 6)
    world.ledger.add_stored(lease, STORE, "v1", [OBJECT, other])
    world.side.hset(the_hash(world, "stored"), "/a.ts", word)

    assert world.ledger.stored_objects(ASSET, STORE, "v1") == {"b.ts": other}


def test_progress_told_by_another_version_does_not_break_status(world: RedisWorld) -> None:
    ours = Progress("asset-1", "room-vod", 1, 2, 3, "a.ts")
    world.ledger.report(ours)
    told = str(world.side.hget("archiver:progress", "asset-1"))
    end, fact = told.split("{", 1)
    world.side.hset("archiver:progress", "asset-2", f'{end}{{"speed":5,{fact}')
    world.side.hset("archiver:progress", "asset-3", f'{end}{{"asset_id":"asset-3"}}')

    assert world.ledger.progress() == [ours, ours]
