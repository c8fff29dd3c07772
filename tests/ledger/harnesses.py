"""The two ledgers, each with a clock that moves only when told to."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import SecretStr
from redis import Redis

from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from tests.contracts.ledger_contract import START

SEAL = Seal(SecretStr("the app secret of the tests"))


class MemoryHarness:
    def __init__(self) -> None:
        self.now: datetime = START
        self.ledger = MemoryLedger(lambda: self.now)

    def advance(self, duration: timedelta) -> None:
        self.now += duration

    def flush(self) -> None:
        self.ledger.clear()


class RedisHarness:
    """`side`: a client of its own, to see what the ledger really stores."""

    def __init__(self, url: str) -> None:
        self.now: datetime = START
        self.side = Redis.from_url(url, decode_responses=True)
        self.ledger = RedisLedger(url, SEAL, clock=lambda: self.now)

    def advance(self, duration: timedelta) -> None:
        self.now += duration
        for key in self.side.scan_iter(count=1_000):  # Redis's own lifetimes are shortened as much
            left = self.side.pttl(key)
            if left > 0:
                self.side.pexpire(key, left - duration // timedelta(milliseconds=1))

    def flush(self) -> None:
        self.side.flushall()

    def close(self) -> None:
        self.ledger.close()
        self.side.close()
