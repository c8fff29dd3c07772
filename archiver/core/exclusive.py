"""One run of a kind at a time. An optimisation: whatever is guarded is harmless when it happens twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from archiver.ledger.base import Facts


class Turn:
    """The right to go on. `extend` as often as work goes on; a turn not extended ends by itself."""

    def __init__(self, ledger: Facts, name: str, token: str, duration: timedelta) -> None:
        self._ledger = ledger
        self._name = name
        self._token = token
        self._duration = duration

    def extend(self) -> bool:
        """Whether the turn is still ours. One that ended by itself, or that a flushed ledger forgot, is taken anew if
        nobody else has it."""
        if self._ledger.extend_lock(self._name, self._token, self._duration):
            return True
        token = self._ledger.lock(self._name, self._duration)
        if token is not None:
            self._token = token
        return token is not None

    def end(self) -> None:
        self._ledger.unlock(self._name, self._token)


@contextmanager
def only_one(ledger: Facts, name: str, duration: timedelta) -> Iterator[Turn | None]:
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
