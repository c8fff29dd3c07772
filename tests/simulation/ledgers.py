"""The one ledger, audited, and how each process reaches it."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from archiver.core.alerts import BOOK_FACT
from archiver.core.upkeep.reports import RECONCILE_EXPECTED_FACT, RECONCILE_FACT
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, AttemptStart, CopyState, Lease, Progress, Row, Seen, Settlement
from tests.simulation.faults import Faults
from tests.simulation.scheduler import Process

T = TypeVar("T")

READS = (
    "now", "get", "recall", "recall_all", "rows", "counts", "progress", "warned", "next_due_at", "stored_objects",
)  # fmt: skip
"""What a ledger still answers that cannot write (a read-only replica, out of memory, a full disk)."""

_KEPT = ("_clock", "_mutex")  # not part of what a snapshot holds


class LedgerAudit(Protocol):
    """Told of every change of a row by a process."""

    def leased(self, process: Process, lease: Lease, *, was_living: bool) -> None: ...

    def settled_lease(self, process: Process, asset_id: str) -> None: ...

    def discovered(self, before: dict[str, Row]) -> None: ...

    def swept(self, fact: Mapping[str, object]) -> None:
        """A sweep that came to its end is recorded."""
        ...

    def reconcile_expected(self) -> None:
        """From now on a reconcile that does not end is to be told."""
        ...

    def reconciled(self, process: Process) -> None:
        """A reconcile that came to its end is recorded."""
        ...

    def told(self, process: Process, book: Mapping[str, object]) -> None:
        """What was alerted is recorded."""
        ...

    def not_told(self, process: Process) -> None:
        """What it alerted is not recorded: its lock is over."""
        ...

    def settled(self, process: Process, before: Row | None, after: Row | None) -> None: ...


class AuditedLedger(MemoryLedger):
    """`clock` is the ledger's own."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(clock)

    def snapshot(self) -> bytes:
        return pickle.dumps({name: value for name, value in vars(self).items() if name not in _KEPT})

    def restore(self, snapshot: bytes) -> None:
        vars(self).update(pickle.loads(snapshot))

    def is_leased(self, asset_id: str) -> bool:
        """To somebody, and not ended by the ledger's clock."""
        asset = self._assets.get(asset_id)
        if asset is None:
            return False
        until = asset.timed_at if asset.row.state is AssetState.RUNNING else asset.row.leased_until
        return until is not None and until > self._clock()

    def all_rows(self) -> list[Row]:
        return [asset.row for asset in self._assets.values()]


class SimLedger:
    """`ledger.base.Ledger`, as one process has it: every call may meet its fate."""

    def __init__(self, process: Process, ledger: AuditedLedger, faults: Faults, audit: LedgerAudit) -> None:
        self._process = process
        self._ledger = ledger
        self._faults = faults
        self._audit = audit

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, partial(method, *args, **kwargs))

        setattr(self, name, called)  # found without us the next time
        return called

    def begin(self, asset_id: str, holder: str, duration: timedelta, facts: str) -> AttemptStart:
        def act() -> AttemptStart:
            was_living = self._ledger.is_leased(asset_id)
            found = self._ledger.begin(asset_id, holder, duration, facts)
            if found.lease is not None:
                self._audit.leased(self._process, found.lease, was_living=was_living)
            return found

        return self._call(f"begin {asset_id[-4:]}", act)

    def lease(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        def act() -> Lease | None:
            was_living = self._ledger.is_leased(asset_id)
            lease = self._ledger.lease(asset_id, holder, duration)
            if lease is not None:
                self._audit.leased(self._process, lease, was_living=was_living)
            return lease

        return self._call(f"lease {asset_id[-4:]}", act)

    def lease_ended(self, asset_id: str, holder: str, duration: timedelta) -> Lease | None:
        def act() -> Lease | None:
            was_living = self._ledger.is_leased(asset_id)
            lease = self._ledger.lease_ended(asset_id, holder, duration)
            if lease is not None:
                self._audit.leased(self._process, lease, was_living=was_living)
            return lease

        return self._call(f"lease ended {asset_id[-4:]}", act)

    def release(
        self,
        lease: Lease,
        copies: Mapping[str, CopyState] | None = None,
        settlement: Settlement | None = None,
        *,
        keep_work: bool = False,
    ) -> Row:
        def release() -> Row:
            row = self._ledger.release(lease, copies, settlement, keep_work=keep_work)
            self._audit.settled_lease(self._process, lease.asset_id)
            return row

        return self._changing(f"release {lease.asset_id[-4:]}", lease.asset_id, release)

    def settle(self, lease: Lease, seen: Seen, settlement: Settlement) -> Row:
        def settle() -> Row:
            row = self._ledger.settle(lease, seen, settlement)
            self._audit.settled_lease(self._process, lease.asset_id)
            return row

        return self._changing(
            f"settle {lease.asset_id[-4:]} {settlement.state}",
            lease.asset_id,
            settle,
        )

    def discover(self, seen: Sequence[Seen]) -> int:
        def act() -> int:
            before = {row.asset_id: row for row in self._ledger.all_rows()}
            new = self._ledger.discover(seen)
            self._audit.discovered(before)
            return new

        return self._call("discover", act)

    def record_archived(self, seen: Seen, settlement: Settlement) -> bool:
        return self._changing(
            f"record {seen.asset_id[-4:]} {settlement.state}",
            seen.asset_id,
            lambda: self._ledger.record_archived(seen, settlement),
        )

    def remove(self, seen: Seen, settlement: Settlement) -> Row:
        return self._changing(
            f"remove {seen.asset_id[-4:]} {settlement.state}",
            seen.asset_id,
            lambda: self._ledger.remove(seen, settlement),
        )

    def reopen(self, asset_id: str, **how: Any) -> Row | None:
        return self._changing(
            f"reopen {asset_id[-4:]}", asset_id, lambda: self._ledger.reopen(asset_id, **how)
        )

    def rows(
        self,
        states: Iterable[AssetState] | None = None,
        *,
        expiring_before: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        chosen = None if states is None else sorted(states)
        return iter(
            self._call(
                "rows",
                lambda: list(self._ledger.rows(chosen, expiring_before=expiring_before, limit=limit)),
            )
        )

    def remember(self, name: str, fact: Mapping[str, object], lifetime: timedelta | None = None) -> None:
        def act() -> None:
            self._ledger.remember(name, fact, lifetime)
            if name == SWEEP_FACT:
                self._audit.swept(fact)
            elif name == RECONCILE_EXPECTED_FACT:
                self._audit.reconcile_expected()
            elif name == RECONCILE_FACT:
                self._audit.reconciled(self._process)

        self._call("remember", act)

    def remember_locked(self, name: str, fact: Mapping[str, object], *, lock: str, token: str) -> bool:
        def act() -> bool:
            is_kept = self._ledger.remember_locked(name, fact, lock=lock, token=token)
            if name == BOOK_FACT:
                if is_kept:
                    self._audit.told(self._process, fact)
                else:
                    self._audit.not_told(self._process)
            return is_kept

        return self._call("remember_locked", act)

    def report(self, progress: Progress) -> None:
        if self._faults.active("ledger", self._process.scheduler.seconds) is None:
            self._ledger.report(progress)

    def lock(self, name: str, duration: timedelta) -> str | None:
        asked_at = self._process.scheduler.seconds
        self._process.is_blind = False
        token = self._call("lock", lambda: self._ledger.lock(name, duration))
        if token is not None:
            self._process.locked_at = asked_at
        return token

    def close(self) -> None:
        return

    def _changing(self, what: str, asset_id: str, change: Callable[[], T]) -> T:
        def act() -> T:
            before = self._ledger.get(asset_id)
            result = change()
            self._audit.settled(self._process, before, self._ledger.get(asset_id))
            return result

        return self._call(what, act)

    def _call(self, what: str, action: Callable[[], T]) -> T:
        def act() -> T:
            kind = self._faults.active("ledger", self._process.scheduler.seconds)
            if kind == "away" or (kind == "read only" and what not in READS):
                raise LedgerUnavailable(f"{what}: {kind}")
            return action()

        try:
            return self._process.call(f"ledger {what}", act, lambda: LedgerUnavailable(f"{what}: no answer"))
        except LedgerUnavailable:
            self._process.is_blind = True
            raise


class Json:
    """Instead of the module `json`, for the facts of the ledger: most of them are read hundreds of times."""

    dumps = staticmethod(json.dumps)

    @staticmethod
    @lru_cache(maxsize=500)
    def loads(text: str) -> Mapping[str, object]:
        return MappingProxyType(json.loads(text))


class Secrets:
    """Instead of the module `secrets`, so that a run can be repeated."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def randbits(self, bits: int) -> int:
        return self._rng.getrandbits(bits)

    def token_hex(self, size_bytes: int) -> str:
        return self._rng.randbytes(size_bytes).hex()

    def token_bytes(self, size_bytes: int) -> bytes:
        return self._rng.randbytes(size_bytes)

    def token_urlsafe(self, size_bytes: int) -> str:
        return self._rng.randbytes(size_bytes).hex()

    def choice(self, options: Sequence[Any]) -> Any:
        return self._rng.choice(options)
