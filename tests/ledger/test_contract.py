"""Both ledgers keep the contract, the one in Redis against a real Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.ledger_contract import LedgerContract
from tests.ledger.worlds import MemoryWorld, RedisWorld


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def world(self) -> MemoryWorld:
        return MemoryWorld()


class TestRedisLedger(LedgerContract):
    @pytest.fixture
    def world(self, redis_url: str) -> Iterator[RedisWorld]:
        world = RedisWorld(redis_url)
        yield world
        world.close()
