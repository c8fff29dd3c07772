"""`python -m tests.worker.serve.settler REDIS_URL NAME`: archives one asset after the other, to be killed."""

from __future__ import annotations

import sys
from datetime import timedelta

from pydantic import SecretStr

from archiver.http.tally import Tally
from archiver.ledger.models import AssetState, Seen, Settlement
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from worker.tallies import TallyFlusher

if __name__ == "__main__":
    ledger = RedisLedger(sys.argv[1], Seal(SecretStr("secret")))
    tally = Tally()
    TallyFlusher(ledger, tally, timedelta(milliseconds=20)).start()
    for number in range(1_000_000):
        seen = Seen(f"{sys.argv[2]}-{number}", "chat", ledger.now(), AssetState.DISCOVERED, size_bytes=10)
        ledger.discover([seen])
        lease = ledger.lease(seen.asset_id, sys.argv[2], timedelta(minutes=1))
        assert lease is not None
        tally.add_request("store", 0.02)
        how = Settlement(AssetState.ARCHIVED, stored_bytes=10, copied_bytes=10, copied_objects=1)
        ledger.settle(lease, seen, how)
