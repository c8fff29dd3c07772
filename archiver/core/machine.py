"""Faults of this machine (memory, threads, file handles, disk), which are never the asset's fault."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta

import structlog

from archiver.core.errors import DestinationsFailed
from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerError
from archiver.retry_policy import MACHINE_FAULT
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""No file handles or memory here: nothing is wrong at the other side."""
_LOCAL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""This machine's disk, unless a destination raised it: then the destination's."""
_NO_THREAD = ("can't start new thread", "can't allocate lock")

FACTS = "machine:"
"""Names of the ledger's facts, one for each worker whose machine fails: `reason`, and `faults` in a row. They end with
its next good attempt, or after FACT_LIFETIME."""
FACT_LIFETIME = timedelta(minutes=10)

MOST_FAULTS = 5
"""In a row, after which the process is restarted: what it leaked ends with it."""


def is_machine_fault(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, is a lack of memory, threads or file handles on this machine, or a
    full or failing disk of its own."""
    return any(_is_fault(each, at_store) for each, at_store in _chain(error))


def _is_fault(error: BaseException, at_store: bool) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in _NO_THREAD)
    if isinstance(error, OSError):
        return error.errno in _EXHAUSTED or (error.errno in _LOCAL_DISK and not at_store)
    return False


def _chain(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """Yield `error` and everything it was raised from, also `from None`, and whether each came from a destination."""
    seen: set[int] = set()
    waiting: list[tuple[BaseException, bool]] = [(error, False)]
    while waiting:
        each, at_store = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        at_store = at_store or isinstance(each, StorageError)
        yield each, at_store
        below = [each.__cause__, each.__context__]
        if isinstance(each, DestinationsFailed):
            below += each.failed.values()
        if isinstance(each, BaseExceptionGroup):
            below += each.exceptions
        waiting += [(one, at_store) for one in below if one is not None]


class MachineFaults:
    """The faults in a row of one process, with a pause after each, so that a machine which fails at once does not go
    through the whole queue. Not thread-safe."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._in_a_row = 0

    @property
    def should_end(self) -> bool:
        """Return whether to end the process, so that it is restarted."""
        return self._in_a_row >= MOST_FAULTS

    def failed(self, reason: str, holder: str, ledger: Facts | None) -> None:
        """Log one more fault in a row, tell the ledger where that is possible, and pause as MACHINE_FAULT says."""
        self._in_a_row += 1
        pause = MACHINE_FAULT.pause(self._in_a_row)
        log.error(
            "machine_fault",
            holder=holder,
            reason=reason,
            faults=self._in_a_row,
            pause_seconds=pause.total_seconds(),
            ends=self.should_end,
        )
        if ledger is not None:
            with suppress(LedgerError, MemoryError):
                fact = {"reason": reason, "faults": self._in_a_row}
                ledger.remember(FACTS + holder, fact, lifetime=FACT_LIFETIME)
        if not self.should_end:
            self._sleep(pause.total_seconds())

    def passed(self, holder: str, ledger: Facts) -> None:
        """An attempt ended without such a fault."""
        if self._in_a_row:
            self._in_a_row = 0
            with suppress(LedgerError):
                ledger.forget(FACTS + holder)


def failing_machines(ledger: Facts) -> Mapping[str, str]:
    """Return the reason for each worker whose machine fails just now. Raises LedgerError."""
    found = ledger.recall_all(FACTS)
    return {name.removeprefix(FACTS): str(fact.get("reason", "")) for name, fact in sorted(found.items())}
