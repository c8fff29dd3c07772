"""The outbox in Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta

from archiver.ledger.models import Event, OutboxSize
from archiver.ledger.redis.calls import BATCH
from archiver.ledger.redis.row_reader import RowReader
from archiver.ledger.redis.values import milliseconds


class RedisOutbox(RowReader):
    """`ledger.base.Outbox`. An entry is a JSON array: the event's number, and the row as `rows.read_row` takes it."""

    def keep_events(self, lifetime: timedelta) -> None:
        key = self._key("outbox_on")
        self._call("keep_events", lambda: self._redis.set(key, "1", px=milliseconds(lifetime)))

    def events(self, limit: int) -> list[Event]:
        entries = self._call("events", lambda: self._redis.lrange(self._key("outbox"), 0, limit - 1))
        read = (json.loads(entry) for entry in entries) if limit > 0 else ()
        return [Event(int(number), self._row(flat)) for number, flat in read]

    def delivered(self, event: Event) -> None:
        self._run("delivered", event.number)

    def replay(self, asset_ids: Sequence[str]) -> int:
        batches = (asset_ids[first : first + BATCH] for first in range(0, len(asset_ids), BATCH))
        return sum(int(self._run("replay", *batch, once=True)) for batch in batches)

    def outbox_size(self) -> OutboxSize:
        waiting, dropped = self._run("outbox_size")
        return OutboxSize(int(waiting), int(dropped))

    def forget_dropped(self) -> None:
        self._call("forget_dropped", lambda: self._redis.delete(self._key("outbox_dropped")))
