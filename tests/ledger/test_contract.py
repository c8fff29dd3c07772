"""Run the contract on both ledgers, the one in Redis against a real Valkey. A new ledger needs a class here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.ledger_contract import LedgerContract
from tests.ledger.harnesses import MemoryHarness, RedisHarness


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


class TestRedisLedger(LedgerContract):
    @pytest.fixture
    def harness(self, redis_url: str) -> Iterator[RedisHarness]:
        harness = RedisHarness(redis_url)
        yield harness
        harness.close()
