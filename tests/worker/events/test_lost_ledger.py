"""The receiver is down, Redis is flushed, the ledger is rebuilt: the receiver misses nothing."""

from __future__ import annotations

import json
import os
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.upkeep.reconcile import Reconciler
from archiver.http import trust
from archiver.ledger.models import AssetState, Settlement
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from storage_backends.registry import open_destinations
from tests.core.archived import archive_at, manifest_of, put
from tests.core.examples import asset
from tests.valkey import redis_url, shared_valkey  # noqa: F401 # fixtures
from tests.worker.events.test_sender import SECRET, Receiver, receiver  # noqa: F401 # fixture
from worker.events.sender import EventSender

NOBODY = "http://127.0.0.1:1/hook"
DAY = timedelta(days=1)
SCOPE = Scope(timedelta(days=15))


@pytest.mark.usefixtures("receiver")
def test_receiver_down_redis_flushed_ledger_rebuilt_and_nothing_is_missing(
    redis_url: str,  # noqa: F811
    receiver: Receiver,  # noqa: F811
    tmp_path: Path,
) -> None:
    with closing(RedisLedger(redis_url, Seal(SecretStr("secret")))) as ledger:
        [store] = open_destinations([f"file://{tmp_path}/archive"])

        def reconcile() -> None:
            reconciler = Reconciler(
                ledger=ledger, destinations=[store], scope=SCOPE, clock=ledger.now, events_wanted=True
            )
            assert reconciler.reconcile() is not None

        def archive(asset_id: str) -> None:
            one = asset(id=asset_id, created_at=(ledger.now() - DAY).isoformat())
            seen = judge(one, SCOPE)
            ledger.discover([seen])
            lease = ledger.lease(asset_id, "w", DAY)
            assert lease is not None
            key = archive_at([store], one)
            put(store, key, manifest_of(one).model_copy(update={"archived_at": ledger.now()}).to_bytes())
            ledger.settle(lease, seen, Settlement(AssetState.ARCHIVED, stored_objects=1, stored_bytes=7))

        def deliver(url: str) -> bool:
            sender = EventSender(
                ledger,
                url=SecretStr(url),
                secret=SecretStr(SECRET),
                destinations=[store.name],
                authorities=trust.authorities(),
            )
            with closing(sender):
                return sender.deliver()

        archive("before-the-url-was-set")
        _age(tmp_path, timedelta(days=30))
        reconcile()
        deliver(receiver.url)
        for number in range(10):
            archive(f"delivered-{number}")
        assert deliver(receiver.url)
        reconcile()
        assert not _deliver_nothing(deliver)
        for number in range(20):
            archive(f"waiting-{number}")
        deliver(NOBODY)
        reconcile()
        for number in range(20):
            archive(f"after-the-record-{number}")
        deliver(NOBODY)

        with Redis.from_url(redis_url) as flushed:
            flushed.flushall()
        reconcile()
        deliver(NOBODY)
        assert deliver(receiver.url)

        taken = {event["data"]["asset_id"] for event in receiver.taken.values()}
        missing = {f"waiting-{n}" for n in range(20)} | {f"after-the-record-{n}" for n in range(20)}
        assert missing - taken == set()
        assert "before-the-url-was-set" not in taken
        [row] = [event for event in receiver.taken.values() if event["data"]["asset_id"] == "waiting-3"]
        assert row["data"]["destinations"] == [store.name]


def _deliver_nothing(deliver: Any) -> bool:
    return not deliver(NOBODY)


def _age(folder: Path, by: timedelta) -> None:
    """Date the manifests back."""
    then = (datetime.now(UTC) - by).timestamp()
    for path in (folder / "archive" / keys.MANIFESTS).rglob("*.json"):
        saved = json.loads(path.read_text())
        saved["archived_at"] = (datetime.now(UTC) - by).isoformat()
        path.write_text(json.dumps(saved))
        os.utime(path, (then, then))
