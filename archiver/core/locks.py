"""Locks in the ledger, so that a task runs once at a time. An optimisation: whatever they guard is idempotent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from archiver.ledger.base import Facts


class Lock:
    """A lock that is held; it expires `ttl` after it was last extended."""

    def __init__(self, ledger: Facts, name: str, token: str, ttl: timedelta) -> None:
        self._ledger = ledger
        self._name = name
        self._token = token
        self._ttl = ttl

    def extend(self) -> bool:
        """Start the TTL again; False when the lock was lost to another holder. One that has expired, or that a flushed
        ledger forgot, is acquired again if it is free. Raises LedgerError."""
        if self._ledger.extend_lock(self._name, self._token, self._ttl):
            return True
        token = self._ledger.lock(self._name, self._ttl)
        if token is not None:
            self._token = token
        return token is not None

    def release(self) -> None:
        self._ledger.unlock(self._name, self._token)


@contextmanager
def acquire(ledger: Facts, name: str, ttl: timedelta) -> Iterator[Lock | None]:
    """Yield None when another process holds the lock. Raises LedgerError."""
    token = ledger.lock(name, ttl)
    if token is None:
        yield None
        return
    lock = Lock(ledger, name, token, ttl)
    try:
        yield lock
    finally:
        lock.release()
