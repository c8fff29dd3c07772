from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from archiver.ledger.models import AssetState
from archiver.ledger.redis.ledger import RedisLedger
from tests.contracts.ledger_contract import HOUR, seen
from tests.ledger.contenders import ASSETS, contend
from tests.ledger.harnesses import SEAL


def test_eight_contending_processes_never_lease_one_of_three_assets_twice(redis_url: str) -> None:
    ledger = RedisLedger(redis_url, SEAL)
    ledger.discover([seen(asset_id) for asset_id in ASSETS])

    with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("spawn")) as processes:
        contests = [processes.submit(contend, redis_url, f"w{n}", 150) for n in range(8)]
        results = [contend.result(timeout=60) for contend in contests]

    assert [wrong for _, _, wrongs in results for wrong in wrongs] == []
    taken = sum(taken for taken, _, _ in results)
    assert taken > len(ASSETS)
    assert sum(settled for _, settled, _ in results) > len(ASSETS)
    rows = list(ledger.rows())
    assert sum(row.attempts for row in rows) == taken
    assert ledger.counts().balanced
    assert len(ledger.take_due(10, HOUR)) == len(ASSETS)
    assert ledger.counts().states[AssetState.QUEUED] == len(ASSETS)
    ledger.close()
