"""One run of a kind at a time. An optimisation: whatever is guarded is harmless when it happens twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from ledger.base import Ledger


class Turn:
    """The right to go on. `extend` as often as work goes on; a turn not extended ends by itself."""

    def __init__(self, ledger: Ledger, name: str, token: str, duration: timedelta) -> None:
        self._ledger = ledger
        self._name = name
        self._token = token
        self._duration = duration

    def extend(self) -> None:
        self._ledger.extend_lock(self._name, self._token, self._duration)

    def end(self) -> None:
        self._ledger.unlock(self._name, self._token)


@contextmanager
def only_one(ledger: Ledger, name: str, duration: timedelta) -> Iterator[Turn | None]:
    """None while somebody else is at `name`. Raises LedgerError."""
    token = ledger.lock(name, duration)
    if token is None:
        yield None
        return
    turn = Turn(ledger, name, token, duration)
    try:
        yield turn
    finally:
        turn.end()
