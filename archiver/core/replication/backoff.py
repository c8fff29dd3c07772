"""Remember which assets the automatic runs could not copy, and when each is tried again.

A destination that refuses to replace a copy, such as a write-once store, refuses it each time: the copy is read in
full, and sent, in vain. What fails for another reason, such as a destination that does not answer, is not remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.core.replication.repairer import Repaired, Result
from archiver.hms.models import parse_time
from archiver.ledger.base import Ledger
from archiver.ledger.models import CopyState, Row
from storage_backends.errors import DestinationRefuses

FACT = "replicate_backoff"
LONGEST = timedelta(days=1)
REMEMBERED = 500
"""Assets: about 150 kB. One that failed before them is tried at the next run."""
OFTEN = 3
"""Failures in a row, after which an asset is tried after all others."""
_REASON_CHARS = 100


@dataclass(frozen=True, slots=True)
class _Failure:
    number: int  # in a row
    until: datetime
    held: str  # where it was not whole then: a change is tried at once
    reason: str


class Backoff:
    """Not thread-safe. One automatic run at a time has it."""

    def __init__(self, ledger: Ledger, names: Sequence[str], now: datetime) -> None:
        """`names`: of the destinations. Raises LedgerError."""
        self._ledger = ledger
        self._names = names
        self._now = now
        saved = (ledger.recall(FACT) or {}).get("assets")
        self._failures = _parsed(saved if isinstance(saved, Mapping) else {})
        self._is_changed = False

    def waiting(self) -> list[str]:
        """Return why each asset that is not tried now failed."""
        return [failure.reason for failure in self._failures.values() if failure.until > self._now]

    def waits(self, row: Row) -> bool:
        failure = self._failures.get(row.asset_id)
        return failure is not None and failure.until > self._now and failure.held == self._held(row)

    def failed_often(self, asset_id: str) -> bool:
        failure = self._failures.get(asset_id)
        return failure is not None and failure.number >= OFTEN

    def note(self, repaired: Repaired, now: datetime) -> None:
        """Raises LedgerError."""
        asset_id = repaired.asset_id
        if repaired.result in (Result.COPIED, Result.NOTHING_TO_DO, Result.NOT_STORED):
            self._is_changed |= self._failures.pop(asset_id, None) is not None
        elif repaired.result is Result.FAILED and _is_lasting(repaired):
            row = self._ledger.get(asset_id)
            before = self._failures.pop(asset_id, None)
            number = before.number + 1 if before else 1
            held = self._held(row) if row else ""
            self._failures[asset_id] = _Failure(
                number, now + delay(number), held, repaired.reason[:_REASON_CHARS]
            )
            self._is_changed = True

    def save(self) -> None:
        """Raises LedgerError."""
        if self._is_changed:
            latest = list(self._failures.items())[-REMEMBERED:]
            assets = {
                id_: [each.number, each.until.isoformat(), each.held, each.reason] for id_, each in latest
            }
            self._ledger.remember(FACT, {"assets": assets})
            self._is_changed = False

    def _held(self, row: Row) -> str:
        states = (f"{name}={row.copies.get(name)}" for name in self._names)
        return f"{row.state}: " + ", ".join(state for state in states if not state.endswith(CopyState.WHOLE))


def delay(number: int) -> timedelta:
    """Return how long to wait after so many failures in a row: 0 (until the next run, an hour), 2, 4, ... hours."""
    return timedelta(0) if number < 2 else min(timedelta(hours=2 ** min(number - 1, 10)), LONGEST)


def _is_lasting(repaired: Repaired) -> bool:
    """Whether the next run would fail as well: no copy is whole, or a destination refuses."""
    return all(isinstance(error, DestinationRefuses) for error in repaired.failed.values())


def _parsed(saved: Mapping[str, object]) -> dict[str, _Failure]:
    found: dict[str, _Failure] = {}
    for asset_id, each in saved.items():
        match each:
            case [int(number), str(until), str(held), str(reason)] if (at := parse_time(until)) is not None:
                found[asset_id] = _Failure(number, at, held, reason)
    return found
