"""The outbox in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from archiver.ledger.memory.state import State, synchronized
from archiver.ledger.models import EVENT_STATES, Event, OutboxSize


class MemoryOutbox(State):
    """`ledger.base.Outbox`."""

    @synchronized
    def keep_events(self, lifetime: timedelta) -> None:
        self._events_until = self._clock() + lifetime

    @synchronized
    def events(self, limit: int) -> list[Event]:
        return self._outbox[: max(limit, 0)]

    @synchronized
    def delivered(self, event: Event) -> None:
        self._outbox = [each for each in self._outbox if each.number != event.number]

    @synchronized
    def replay(self, asset_ids: Sequence[str]) -> int:
        found = [asset.row for each in asset_ids if (asset := self._assets.get(each)) is not None]
        return sum(self._keep_event(row) for row in found if row.state in EVENT_STATES)

    @synchronized
    def outbox_size(self) -> OutboxSize:
        return OutboxSize(len(self._outbox), self._events_dropped)

    @synchronized
    def forget_dropped(self) -> None:
        self._events_dropped = 0
