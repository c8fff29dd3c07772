"""The ledger in Redis (6.2 or later) or Valkey: one server or a primary with replicas, as Celery needs too.

Every change of an asset is one Lua script (`lua/`), so it is atomic: a row and its indexes never disagree. Scripts
build key names themselves, so a cluster is not supported.

Each key has a lifetime or an owner. After the prefix:

| key                    | what it is                                                   | lives                       |
|------------------------|--------------------------------------------------------------|-----------------------------|
| asset:<id>             | hash: the row, by the letters of `rows._FIELDS`              | owned by the ledger         |
| seen                   | how many assets were ever entered; counted apart from states | owned by the ledger         |
| state:<state>          | zset: its assets by expires_at; each asset is in exactly one | owned by the ledger         |
| time:queued            | zset: by the time they were queued                           | while queued                |
| time:running           | zset: by the end of the lease                                | while leased                |
| time:waiting           | zset: by next_attempt_at                                     | until that                  |
| ready                  | zset by expires_at: waits that are over, leases that ended   | until queued or leased      |
| time:ready             | zset by next_attempt_at: the waiting ones of `ready`         | until queued or leased      |
| stored:[id,dest]       | hash: `version`, and an object by `/path`                    | while open, 30 days at most |
| upload:[id,dest,key]   | hash: `upload` (its token sealed), and a part by number      | while open, 30 days at most |
| work:<id>              | set: the `stored` and `upload` keys of an asset              | as long as those            |
| acknowledged           | set: the assets whose end a person has acknowledged          | until the state changes     |
| warned                 | zset: archived with a warning, by when that was              | until settled otherwise     |
| copies                 | hash: by 6 letters of rows' `cp`, how many assets have them  | owned by the ledger         |
| destinations           | hash: names by the first 5 of those letters                  | owned by the ledger         |
| progress               | hash: by asset, each with its end in front                   | 2 minutes after the last    |
| totals                 | hash: what was ever done, by name                            | owned by the ledger         |
| outbox                 | list: events not delivered yet, MAX_EVENTS at most           | until delivered             |
| outbox_number          | the number of the last event                                 | owned by the ledger         |
| outbox_on              | that events are kept                                         | as its caller says          |
| outbox_dropped         | how many events were not kept                                | until a person replays them |
| facts                  | hash: by name, each with its end, if any, in front           | owned by who remembers      |
| secret:<name>          | a sealed string                                              | as its caller says          |
| lock:<name>            | its holder's token                                           | as its caller says          |
| rate:<name>            | when what is reserved of a rate is earned                    | until that                  |

Times are whole microseconds since 1970, exact in a zset's double until the year 2255.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.redis import persistence
from archiver.ledger.redis.copy_journal import RedisCopyJournal
from archiver.ledger.redis.facts import RedisFacts
from archiver.ledger.redis.leases import RedisLeases
from archiver.ledger.redis.outbox import RedisOutbox
from archiver.ledger.redis.persistence import Persistence
from archiver.ledger.redis.rate_limits import RedisRateLimits
from archiver.ledger.redis.schedule import RedisSchedule
from archiver.ledger.redis.totals import RedisTotals

T = TypeVar("T")


class RedisLedger(
    RedisSchedule, RedisLeases, RedisCopyJournal, RedisFacts, RedisRateLimits, RedisTotals, RedisOutbox
):
    """`ledger.base.Ledger`, shared by every process that is given the same server, prefix and secret."""

    def ping(self) -> None:
        # not PING: a server that answers it may still refuse writes (full, read-only, no disk)
        self._call("ping", lambda: self._redis.set(self._key("lock:", "ping"), "", px=1))

    def persistence(self) -> Persistence:
        """Judge whether the server keeps the ledger. By INFO, which managed servers answer where they refuse CONFIG."""
        sections = ("persistence", "memory", "stats", "replication")
        info: dict[str, Any] = self._unless_refused(
            lambda: {
                name: value for section in sections for name, value in self._redis.info(section).items()
            },
            {},
        )
        config: dict[str | None, str | None] = self._unless_refused(
            lambda: self._redis.config_get("save"), {}
        )
        return persistence.judge(info, config.get("save"))

    def _unless_refused(self, ask: Callable[[], T], otherwise: T) -> T:
        """Return `otherwise` when the server answers and refuses. Raises LedgerUnavailable."""
        try:
            return self._call("persistence", ask)
        except LedgerUnavailable as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            return otherwise

    def close(self) -> None:
        self._redis.close()
