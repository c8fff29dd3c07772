"""What is true of the ledger in Redis alone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from archiver.ledger.models import AssetState, CopyState, OpenUpload, Progress, Settlement, StoredObject
from archiver.ledger.redis.calls import connect
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from tests.contracts.ledger_contract import ARCHIVED, HOUR, MINUTE, put, row, seen, take_lease, waiting
from tests.http.test_process import in_child
from tests.ledger.harnesses import SEAL, RedisHarness

SECRET = "marked-secret-7f3a"


@pytest.fixture
def harness(redis_url: str) -> Iterator[RedisHarness]:
    harness = RedisHarness(redis_url)
    yield harness
    harness.close()


@pytest.fixture
def ledger(redis_url: str) -> Iterator[RedisLedger]:
    """As in production: timed by the server."""
    ledger = RedisLedger(redis_url, SEAL)
    yield ledger
    ledger.close()


def calls(side: Redis) -> dict[str, int]:
    """Return how often each command ran so far, those within scripts included."""
    stats: dict[str, dict[str, int]] = side.info("commandstats")
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}


# -- what another version wrote ---------------------------------------------------------------------------------


def test_copies_are_unknown_once_a_version_that_does_not_know_them_set_the_state(
    harness: RedisHarness,
) -> None:
    copies = {"s3://one": CopyState.WHOLE, "gs://two": CopyState.LACKING}
    harness.ledger.record_archived(seen(), replace(ARCHIVED, copies=copies))
    assert row(harness).copies == copies

    harness.side.hset("archiver:asset:a", "ch", "1772366400123999")

    assert row(harness).copies == {}
    assert harness.ledger.note_copies(row(harness), {"s3://one": CopyState.WHOLE})
    assert harness.ledger.counts().copies == {"s3://one": {CopyState.WHOLE: 1}}
    assert RedisLedger(harness.side, SEAL).get("a") == row(harness)


def test_six_destinations_keep_a_row_small(harness: RedisHarness) -> None:
    copies = dict.fromkeys((f"s3://bucket-with-a-long-name-{n}/prefix" for n in range(7)), CopyState.WHOLE)
    harness.ledger.record_archived(seen(), Settlement(AssetState.ARCHIVED, copies=copies))

    assert harness.side.object("encoding", "archiver:asset:a") == "listpack"
    assert row(harness).copies == copies


# -- time ------------------------------------------------------------------------------------------------------


def test_leases_are_timed_by_the_server(ledger: RedisLedger) -> None:
    ledger.discover([seen("held"), seen("ended")])

    assert ledger.lease("held", "w1", HOUR)
    assert ledger.lease("ended", "w1", timedelta())

    assert ledger.lease("held", "w2", HOUR) is None
    assert ledger.lease("ended", "w2", HOUR)


def test_rows_are_stamped_by_the_server(ledger: RedisLedger, harness: RedisHarness) -> None:
    def server_time() -> datetime:
        seconds, microseconds = harness.side.time()
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    before = server_time()
    ledger.discover([seen()])
    found = ledger.get("a")

    assert found
    assert before <= found.first_seen_at == found.changed_at <= server_time()


def test_a_clock_that_goes_back_gives_no_fence_twice(harness: RedisHarness) -> None:
    put(harness, AssetState.DISCOVERED)
    first = take_lease(harness, duration=timedelta())
    harness.now -= HOUR
    harness.ledger.settle(first, seen(), waiting(timedelta(0)))

    assert take_lease(harness).fence > first.fence


# -- an answer that was lost -----------------------------------------------------------------------------------


class LosesAnswers(Connection):
    """Breaks after the server has answered, as often as told to."""

    losses: ClassVar[int] = 0

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = super().read_response(*args, **kwargs)
        if LosesAnswers.losses > 0:
            LosesAnswers.losses -= 1
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError("the answer was lost")
        return answer


@pytest.fixture
def forgetful(redis_url: str) -> Iterator[RedisLedger]:
    client = connect(redis_url)
    client.connection_pool.connection_class = LosesAnswers
    ledger = RedisLedger(client, SEAL)
    ledger.discover([seen()])
    ledger.ping()
    yield ledger
    ledger.close()


def lose_the_next_answer(ledger: RedisLedger, script: str) -> None:
    """Not the one to a NOSCRIPT: the script is made known first."""
    ledger._redis.script_load(ledger._scripts[script].script)
    LosesAnswers.losses = 1


def test_a_lease_whose_answer_was_lost_is_ours(forgetful: RedisLedger) -> None:
    lose_the_next_answer(forgetful, "lease")

    lease = forgetful.lease("a", "w1", HOUR)

    assert lease
    assert LosesAnswers.losses == 0
    found = forgetful.get("a")
    assert found
    assert found.attempts == 1
    forgetful.renew(lease, HOUR)
    assert forgetful.lease("a", "w1", HOUR) is None


def test_a_beginning_whose_answer_was_lost_is_ours(forgetful: RedisLedger) -> None:
    lose_the_next_answer(forgetful, "begin")

    start = forgetful.begin("a", "w1", HOUR, "hold:")

    assert start.lease
    assert start.row
    assert start.row.attempts == 1
    forgetful.renew(start.lease, HOUR)
    assert forgetful.begin("a", "w1", HOUR, "hold:").lease is None


def test_a_settlement_whose_answer_was_lost_is_made_once(forgetful: RedisLedger) -> None:
    lease = forgetful.lease("a", "w1", HOUR)
    assert lease
    lose_the_next_answer(forgetful, "settle")

    settled = forgetful.settle(lease, seen(), ARCHIVED)

    assert LosesAnswers.losses == 0
    assert (settled.state, settled.attempts) == (AssetState.ARCHIVED, 1)
    assert forgetful.counts().balanced


def test_a_lock_whose_answer_was_lost_is_ours(forgetful: RedisLedger) -> None:
    lose_the_next_answer(forgetful, "lock")

    token = forgetful.lock("sweep", HOUR)

    assert token
    assert LosesAnswers.losses == 0
    assert forgetful.lock("sweep", HOUR) is None
    assert forgetful.extend_lock("sweep", token, HOUR)


def test_a_page_whose_answer_was_lost_is_entered_once(forgetful: RedisLedger) -> None:
    lose_the_next_answer(forgetful, "discover")

    forgetful.discover([seen("b"), seen("c")])

    assert forgetful.counts().seen == 3
    assert forgetful.counts().balanced


# -- what is in the store --------------------------------------------------------------------------------------


def everything(side: Redis) -> str:
    """Every key and value, as text."""
    found: list[Any] = []
    for key in side.scan_iter(count=1_000):
        match side.type(key):
            case "hash":
                found.append((key, side.hgetall(key)))
            case "zset":
                found.append((key, side.zrange(key, 0, -1, withscores=True)))
            case "set":
                found.append((key, list(side.smembers(key))))
            case "string":
                found.append((key, side.get(key)))
            case other:
                raise AssertionError(f"the ledger keeps no {other!r}: {key!r}")
    return json.dumps(found, ensure_ascii=False)


def live(harness: RedisHarness) -> None:
    """Use everything that makes a key."""
    for state in AssetState:
        lease = put(harness, state, f"asset-{state}")
    harness.advance(HOUR)  # the wait of the waiting one
    assert harness.ledger.lock("sweep", HOUR)
    harness.ledger.remember("sweep", {"n": 1})
    harness.ledger.remember_secret("thumbnail", SECRET, HOUR)
    lease = take_lease(harness, "asset-waiting")
    harness.ledger.save_upload(lease, "d", "k", OpenUpload(SECRET, 1, 1, None, {1: (1, 1, "tag")}))
    harness.ledger.add_part(lease, "d", "k", 2, (1, 1, "tag"))
    harness.ledger.add_stored(lease, "d", "v", [StoredObject("x", 1, 1)])
    harness.ledger.report(Progress("asset-waiting", "chat", 1, None, 0, "x"))


def test_no_secret_is_stored_in_clear(harness: RedisHarness) -> None:
    live(harness)

    kept = everything(harness.side)

    assert "asset-waiting" in kept
    assert SECRET not in kept
    upload = harness.ledger.load_upload("asset-waiting", "d", "k")
    assert upload
    assert upload.token == SECRET
    assert harness.ledger.recall_secret("thumbnail") == SECRET


def test_under_another_secret_uploads_and_secrets_are_unknown(harness: RedisHarness, redis_url: str) -> None:
    live(harness)
    other = RedisLedger(redis_url, Seal(SecretStr("a new app secret")), clock=lambda: harness.now)

    assert other.load_upload("asset-waiting", "d", "k") is None
    assert other.recall_secret("thumbnail") is None
    assert other.get("asset-waiting") == row(harness, "asset-waiting")
    other.close()


def test_every_key_is_owned_by_the_ledger_or_has_a_lifetime(harness: RedisHarness) -> None:
    live(harness)
    owned = ("asset:", "seen", "state:", "time:", "ready", "facts", "warned", "totals")

    keys = list(harness.side.scan_iter(count=1_000))

    assert all(key.startswith("archiver:") for key in keys)
    mortal = {key for key in keys if not key.removeprefix("archiver:").startswith(owned)}
    assert {key.split(":")[1] for key in mortal} == {"stored", "upload", "work", "progress", "secret", "lock"}
    assert all(0 < harness.side.pttl(key) <= 30 * 86_400_000 for key in mortal)


def test_an_asset_that_ended_leaves_its_row_and_its_place_alone(harness: RedisHarness) -> None:
    lease = put(harness, AssetState.RUNNING)
    assert lease
    harness.ledger.save_upload(lease, "d", "k", OpenUpload("t", 1, 1, None))
    harness.ledger.add_stored(lease, "d", "v", [StoredObject("x", 1, 1)])
    harness.ledger.report(Progress("a", "chat", 1, None, 0, "x"))

    harness.ledger.settle(lease, seen(), ARCHIVED)

    kept = {"asset:a", "seen", "state:archived", "warned", "totals"}
    assert set(harness.side.scan_iter()) == {f"archiver:{name}" for name in kept}


def test_a_part_of_a_forgotten_upload_leaves_no_key(harness: RedisHarness) -> None:
    lease = put(harness, AssetState.RUNNING)
    assert lease

    harness.ledger.add_part(lease, "d", "k", 1, (1, 1, "t"))

    assert not list(harness.side.scan_iter("archiver:upload:*"))


def test_two_prefixes_are_two_ledgers(harness: RedisHarness, redis_url: str) -> None:
    other = RedisLedger(redis_url, SEAL, key_prefix="team-b:", clock=lambda: harness.now)
    live(harness)

    assert other.counts().seen == 0
    other.discover([seen("asset-waiting")])
    assert harness.ledger.counts().balanced
    assert row(harness, "asset-waiting").state == AssetState.RUNNING
    other.close()


def test_half_a_surrogate_pair_in_an_id_is_kept(harness: RedisHarness) -> None:
    asset_id = json.loads('"x\\ud83d"')

    harness.ledger.discover([seen(asset_id)])

    assert [row.asset_id for row in harness.ledger.take_due(1, HOUR)] == [asset_id]


def test_a_row_that_the_server_evicted_is_found_again_by_the_next_sweep(harness: RedisHarness) -> None:
    harness.ledger.discover([seen("a"), seen("b"), seen("c", verdict=AssetState.SKIPPED)])
    harness.side.delete("archiver:asset:a", "archiver:asset:c")

    assert [row.asset_id for row in harness.ledger.take_due(10, HOUR)] == ["b"]
    assert [row.asset_id for row in harness.ledger.rows()] == ["b"]
    assert harness.ledger.lease("a", "w1", HOUR) is None
    assert not harness.ledger.counts().balanced
    harness.ledger.discover([seen("a")])
    assert [row.asset_id for row in harness.ledger.take_due(10, HOUR)] == ["a"]


def test_scripts_that_the_server_forgot_are_loaded_again(harness: RedisHarness) -> None:
    harness.ledger.discover([seen("a")])
    harness.side.script_flush()

    assert harness.ledger.discover([seen("a"), seen("b")]) == 1


def test_a_client_that_would_answer_in_bytes_is_refused(redis_url: str) -> None:
    client = Redis.from_url(redis_url)

    with pytest.raises(ValueError, match="decode_responses"):
        RedisLedger(client, SEAL)
    client.close()


# -- what it costs ---------------------------------------------------------------------------------------------


def test_a_page_of_a_hundred_is_one_round_trip(harness: RedisHarness) -> None:
    harness.ledger.discover([seen("warm up")])
    before = calls(harness.side)

    for page in range(10):
        harness.ledger.discover([seen(f"a{page}-{n}") for n in range(100)])

    after = calls(harness.side)
    assert after["evalsha"] - before["evalsha"] == 10
    assert after["incr"] - before["incr"] == 1_000


def test_a_page_of_known_assets_is_one_read_each(harness: RedisHarness) -> None:
    page = [seen(f"a{n}") for n in range(100)]
    harness.ledger.discover(page)
    before = calls(harness.side)

    harness.ledger.discover(page)

    after = calls(harness.side)
    ran = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    ran.pop("info", None)
    assert ran == {"evalsha": 1, "hmget": 100}


@pytest.mark.parametrize("act", ["take_due", "lease", "counts", "next_due_at"])
def test_the_cost_of_a_call_does_not_grow_with_the_backlog(harness: RedisHarness, act: str) -> None:
    def cost() -> int:
        before = sum(calls(harness.side).values())
        match act:
            case "take_due":
                assert len(harness.ledger.take_due(5, HOUR)) == 5
            case "lease":
                assert harness.ledger.lease("a00001", "w", timedelta())
            case "counts":
                harness.ledger.counts()
            case _:
                harness.ledger.next_due_at()
        return sum(calls(harness.side).values()) - before

    def add(names: range) -> None:
        for start in range(names.start, names.stop, 100):
            harness.ledger.discover([seen(f"a{n:05}") for n in range(start, start + 100)])

    add(range(100))
    cost()
    harness.flush()
    add(range(100))
    few = cost()
    harness.flush()
    add(range(5_000))

    assert cost() == few


def test_many_waits_that_end_at_once_are_promoted_in_short_steps(harness: RedisHarness) -> None:
    harness.ledger.take_due(1, HOUR)  # a script's first EVALSHA at a server is answered NOSCRIPT
    names = [f"a{n:04}" for n in range(1_100)]
    harness.ledger.discover([seen(name, expires_in=(2_000 - n) * MINUTE) for n, name in enumerate(names)])
    for name in names:
        harness.ledger.settle(take_lease(harness, name), seen(name), waiting(timedelta(0)))
    before = calls(harness.side)

    taken = harness.ledger.take_due(2, HOUR)

    assert [row.asset_id for row in taken] == names[:-3:-1]
    assert calls(harness.side)["evalsha"] - before["evalsha"] == 4  # 500, 500, 100; and the taking


def test_an_acknowledgement_that_a_worker_of_an_older_version_left_behind_does_not_count(
    harness: RedisHarness,
) -> None:
    put(harness, AssetState.LOST)
    harness.ledger.acknowledge("a", "ann", "")
    key = next(harness.side.scan_iter("*asset:a"))

    harness.side.hset(
        key, "ch", int(harness.side.hget(key, "ch") or 0) + 1
    )  # as its `move` does, which knows no `ak`

    found = harness.ledger.get("a")
    assert found is not None
    assert found.acknowledged is None
    assert not any(harness.ledger.counts().acknowledged.values())

    harness.side.hset(key, "st", AssetState.DISCOVERED)
    harness.ledger.record_archived(seen(), ARCHIVED)
    assert not harness.side.exists("archiver:acknowledged"), "it is cleared away with the next end"


# -- connections -----------------------------------------------------------------------------------------------


def kept_connection(ledger: RedisLedger) -> Any:
    for _ in range(2):  # the first may load the script
        assert ledger.recall_all("none:") == {}
    [connection] = ledger._idle
    return connection


def test_what_was_left_on_a_connection_is_taken_for_no_answer(ledger: RedisLedger) -> None:
    connection = kept_connection(ledger)
    connection.send_command("SET", "left", "behind")
    assert connection.can_read(5)

    assert ledger.recall_all("none:") == {}


def test_a_connection_that_broke_while_it_was_kept_is_made_again(ledger: RedisLedger) -> None:
    kept_connection(ledger)._sock.shutdown(socket.SHUT_RDWR)

    assert ledger.recall_all("none:") == {}
    assert len(ledger._idle) == 1


def test_a_child_leaves_the_parents_connection_alone(ledger: RedisLedger) -> None:
    parents = kept_connection(ledger)

    def work() -> None:
        assert kept_connection(ledger).pid == os.getpid()

    assert in_child(work) == 0
    assert kept_connection(ledger) is parents
