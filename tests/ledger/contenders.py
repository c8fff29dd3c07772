"""Workers that contend for the same few assets, each in its own process."""

from __future__ import annotations

import random
from datetime import timedelta

from redis import Redis

from archiver.ledger.errors import LeaseLost
from archiver.ledger.models import AssetState, Settlement
from archiver.ledger.redis.ledger import RedisLedger
from tests.contracts.ledger_contract import seen
from tests.ledger.harnesses import SEAL

ASSETS = ("a", "b", "c")
AT_ONCE = Settlement(AssetState.WAITING)


def contend(url: str, name: str, rounds: int) -> tuple[int, int, list[str]]:
    """Lease, enter the critical section, leave it, settle. Return leases taken, settlements and what was wrong."""
    ledger, side = RedisLedger(url, SEAL), Redis.from_url(url, decode_responses=True)
    chance = random.Random(name)
    taken, settled, wrong = 0, 0, []
    for _ in range(rounds):
        asset_id = chance.choice(ASSETS)
        abandon = chance.random() < 0.1
        lease = ledger.lease(asset_id, name, timedelta() if abandon else timedelta(minutes=5))
        if lease is None:
            continue

        taken += 1
        if abandon:
            continue  # it has expired: any worker may take it

        if int(side.get(f"fence:{asset_id}") or 0) >= lease.fence:
            wrong.append(f"{asset_id}: fence {lease.fence} is not new")

        if side.incr(f"inside:{asset_id}") != 1:
            wrong.append(f"{asset_id}: two workers at once")
        side.set(f"fence:{asset_id}", lease.fence)
        try:
            ledger.renew(lease, timedelta(minutes=5))
            side.decr(f"inside:{asset_id}")
            ledger.settle(lease, seen(asset_id), AT_ONCE)
            settled += 1
        except LeaseLost as error:
            wrong.append(str(error))
    ledger.close()
    side.close()
    return taken, settled, wrong
