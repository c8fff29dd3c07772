"""Notice a destination that takes nothing although nobody writes there at the moment.

An attempt whose write is refused opens the circuit breaker. Where nothing is due, days may pass before the next one; so
the watch begins an upload now and then, which needs the right to write, and aborts it, which leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from archiver.core.destinations import breaker, probing
from archiver.core.errors import DestinationUnusable
from archiver.ledger.base import Facts
from storage_backends.base import StorageBackend
from storage_backends.errors import DestinationRefuses

log = structlog.get_logger(__name__)

EVERY = timedelta(minutes=5)
"""Two requests for each destination. A refusal opens the breaker for as long."""

_FACT = "write-tried:"


class WriteProbe:
    """`clock`: the ledger's. `machine`: the name of this one, whose credentials these are."""

    def __init__(
        self,
        *,
        ledger: Facts,
        destinations: Sequence[StorageBackend],
        clock: Callable[[], datetime],
        machine: str,
    ) -> None:
        self._ledger = ledger
        self._destinations = destinations
        self._clock = clock
        self._machine = machine

    def run(self) -> None:
        """Try each destination that was not tried within EVERY. Opens the breaker of one that refuses, and closes it
        when it takes writes again. What does not answer is left to those who read there. Raises LedgerError."""
        opened = breaker.opened_on(breaker.opened(self._ledger, self._clock()), self._machine)
        for store in self._destinations:
            fact = f"{_FACT}{store.name}#{self._machine}"
            if store.name in opened or breaker.EVERYTHING in opened or self._ledger.recall(fact) is not None:
                continue
            self._ledger.remember(fact, {}, lifetime=EVERY)
            self._try(store)

    def _try(self, store: StorageBackend) -> None:
        error = probing.begin_and_abort(store)
        now = self._clock()
        if error is None:
            half_open = breaker.half_open(self._ledger.recall_all(breaker.PREFIX), now)
            breaker.close_half_open(self._ledger, half_open, store.name, self._machine)
        elif isinstance(error, DestinationRefuses) and not isinstance(error, DestinationUnusable):
            log.error("destination_refuses", store=store.name, reason=str(error))
            breaker.trip_on(self._ledger, store.name, self._machine, str(error), now)
