"""Look up announced sessions at the API, one after the other, beside the webhooks."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

import structlog

from archiver.core.upkeep.not_listed import Announced
from archiver.hms.errors import HmsError
from archiver.ledger.errors import LedgerError

log = structlog.get_logger(__name__)

MOST_WAITING = 10_000
PAUSES_SECONDS = (10.0, 60.0, 300.0)
"""Before the second, third and fourth look, when a look found nothing new or failed: a webhook may come before the
API lists its asset."""
PACE_SECONDS = 0.1
"""Between two looks, so that a flood leaves the API and the interpreter to others: 3,000 sessions in the time from one
sweep to the next, which finds the rest."""


class Lookups:
    """Thread-safe. What waits when the process ends is found by the next sweep."""

    def __init__(
        self, enter: Callable[[Announced], int], *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        """`enter`: see `Announcements.enter`."""
        self._enter = enter
        self._steady = steady
        self._changed = threading.Condition()  # whose lock may be taken again
        self._waiting: dict[Announced, int] = {}  # and how many looks were made
        self._order: list[tuple[float, int, Announced]] = []
        self._added = 0
        self._stopped = threading.Event()

    def add(self, announced: Announced) -> bool:
        """Look it up soon, unless it waits already; return False when too many wait."""
        with self._changed:
            if announced in self._waiting:
                return True
            if len(self._waiting) >= MOST_WAITING:
                return False
            self._put(announced, 0, self._steady())
            return True

    def run(self) -> None:
        """Look up what was added until `close`."""
        while (announced := self._next()) is not None:
            self.look(announced)
            self._stopped.wait(PACE_SECONDS)

    def close(self) -> None:
        self._stopped.set()
        with self._changed:
            self._changed.notify()

    def look(self, announced: Announced) -> None:
        """Look once; again later when it brought nothing new. Raises nothing of the API and the ledger."""
        new = 0
        try:
            new = self._enter(announced)
        except (HmsError, LedgerError) as error:
            log.warning("announced_not_found_yet", session_id=announced.session_id, reason=str(error))
        except Exception:  # the thread must outlive whatever one look meets
            log.exception("lookup_failed")
        with self._changed:
            looks = self._waiting.pop(announced, 0)
            if not new and looks < len(PAUSES_SECONDS):
                self._put(announced, looks + 1, self._steady() + PAUSES_SECONDS[looks])

    def _put(self, announced: Announced, looks: int, at: float) -> None:
        self._waiting[announced] = looks
        self._added += 1
        heapq.heappush(self._order, (at, self._added, announced))
        self._changed.notify()

    def take(self) -> Announced | None:
        """Return what is to be looked up now; None when nothing is."""
        with self._changed:
            is_due = bool(self._order) and self._order[0][0] <= self._steady()
            return heapq.heappop(self._order)[2] if is_due else None

    def _next(self) -> Announced | None:
        """Wait for it. None: closed."""
        with self._changed:
            while not self._stopped.is_set():
                if (announced := self.take()) is not None:
                    return announced
                self._changed.wait(self._order[0][0] - self._steady() if self._order else None)
            return None
