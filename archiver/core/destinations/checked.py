"""Check that destinations are the ones that the ledger knows, before anything is written or concluded.

The marker of each is read at its first use and whenever CHECK_EVERY has passed, and once more before a manifest is
written. What is found wrong stops this machine alone (`failures`).
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from archiver.core.destinations import breaker, failures
from archiver.core.destinations.identity import Identity
from archiver.core.destinations.marker_check import MarkerCheck
from archiver.core.destinations.markers import Marker
from archiver.core.destinations.registry import Registry
from archiver.core.errors import DestinationSilent, NotTheDestination
from archiver.core.machine import is_machine_fault
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LedgerError
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError, TransientStorageError

log = structlog.get_logger(__name__)

CHECK_EVERY = timedelta(seconds=20)  # one small request per process and destination, while it is used
CHECK_BEFORE_COMMIT = timedelta(seconds=3)


@dataclass(slots=True)
class _State:
    """What this process knows of one destination."""

    marker: MarkerCheck
    lock: threading.RLock = field(default_factory=threading.RLock)
    checked_at: datetime | None = None
    refusal: StorageError | None = None  # what every use of it raises now
    logged: str = ""
    writes: bool | None = (
        None  # whether the last write succeeded; None: none since the last record in the ledger
    )
    write_error: str = ""


class Destinations:
    """The checks of one process. Thread-safe."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        stores: Sequence[StorageBackend],
        workspace: str | None,
        clock: Callable[[], datetime],
        machine: str,
        failure_lifetime: timedelta = timedelta(minutes=30),
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`workspace`: our own (`hms.workspace`). `clock`: the ledger's. `machine`: the name of this one.
        `failure_lifetime`: how long a failure is shown that does not happen again; longer than between two sweeps."""
        self._ledger = ledger
        self._clock = clock
        self._registry = Registry(ledger, workspace)
        self._failures = failures.MachineFailures(ledger, machine, failure_lifetime)
        names = [store.name for store in stores]
        self._states = {
            store.name: _State(
                MarkerCheck(
                    store,
                    configured=names,
                    ledger=ledger,
                    registry=self._registry,
                    machine_failures=self._failures,
                    workspace=workspace,
                    clock=clock,
                    pause=pause,
                )
            )
            for store in stores
        }

    # -- for whoever uses a destination --------------------------------------------------------------------

    def confirm(self, name: str, max_age: timedelta = CHECK_EVERY) -> None:
        """Check that `name` is the destination that the ledger knows, unless that was done within `max_age`.

        Raises NotTheDestination, DestinationSilent, the StorageError that it answered; LedgerError.
        """
        state = self._states[name]
        with state.lock:
            now = self._clock()
            age = None if state.checked_at is None else now - state.checked_at
            if age is None or not timedelta(0) <= age < max_age:
                self._check(state, now)
            if state.refusal is not None:
                raise _again(state.refusal)

    def confirm_again(self, name: str) -> None:
        """Check after a write that the destination confirmed before it is still there. One read of its marker; anything
        else than before is checked in full. Raises as `confirm`."""
        state = self._states[name]
        if state.refusal is not None or not state.marker.is_unchanged():
            self.confirm(name, timedelta(0))

    def confirmed(self, name: str) -> None:
        """Raise what the last check found, for calls that must not wait for a new one."""
        refusal = self._states[name].refusal
        if refusal is not None:
            raise _again(refusal)

    def wrote(self, name: str, error: StorageError | None) -> None:
        """Remember how a write ended; the next check records it in the ledger. Does not wait."""
        state = self._states[name]
        if error is None:
            state.writes = True
        elif (
            isinstance(error, TransientStorageError)
            and state.writes is not True
            and not is_machine_fault(error)
        ):
            state.writes, state.write_error = False, str(error)

    # -- for whoever concludes from what destinations lack -------------------------------------------------

    def is_identified(self, name: str) -> bool:
        """Whether the destination's marker was read and is the one that the ledger remembers. Raises as `confirm`."""
        self.confirm(name)
        return self._states[name].marker.identified

    def began_empty_at(self, name: str) -> datetime | None:
        """Return when the destination was added or adopted empty; None when it was not. Raises LedgerError."""
        remembered = self._registry.recall(name)
        return remembered.created if remembered is not None and remembered.began_empty else None

    def filling(self) -> list[str]:
        """Destinations that were added, and still lack what is archived elsewhere and available at 100ms."""
        return [
            name for name in self._states if (one := self._registry.recall(name)) is not None and one.filling
        ]

    def filled(self, name: str) -> None:
        """Record that a new destination has everything that can still be copied to it. Idempotent."""
        remembered = self._registry.recall(name)
        if remembered is not None and remembered.filling:
            self._registry.remember(name, replace(remembered, filling=False, removed=False))
            log.info("destination_filled", store=name)

    # -- at start and at each sweep ------------------------------------------------------------------------

    def check_all(self) -> bool:
        """Check every destination now, log those added or removed, and return whether all can be used.

        Raises LedgerError.
        """
        usable = True
        self._failures.clear_unused(self._states)
        for name in self._states:
            try:
                self.confirm(name, timedelta(0))
            except StorageError as error:
                usable = False
                log.warning("destination_not_usable", store=name, reason=str(error))
        for name in self._registry.names():
            remembered = self._registry.recall(name)
            if name not in self._states and remembered is not None and not remembered.removed:
                log.warning("destination_removed", store=name, now=sorted(self._states))
                self._registry.remember(name, replace(remembered, filling=False, removed=True))
                breaker.forget(self._ledger, name)
        return usable

    # -- for a person --------------------------------------------------------------------------------------

    def look(self, name: str) -> Identity:
        """Identify the destination without writing anything. Raises StorageError, LedgerError."""
        state = self._states[name]
        with state.lock:
            return state.marker.look(self._clock())

    def adopt(self, name: str) -> Marker:
        """Accept what answers under `name` as the destination, because a person says so; return its marker.

        It counts as new: what it lacks is copied while 100ms has it, and otherwise only counted. Idempotent. Raises
        StorageError, LedgerError.
        """
        state = self._states[name]
        with state.lock:
            marker = state.marker.adopt()
            state.checked_at = None
            breaker.close(self._ledger, name)
            self._failures.clear(name)
            log.warning("destination_adopted", store=name, id=marker.id, by="a person")
            return marker

    # -- inside --------------------------------------------------------------------------------------------

    def _check(self, state: _State, now: datetime) -> None:
        name = state.marker.store.name
        state.refusal = None
        state.checked_at = now
        try:
            state.marker.identify(now)
        except NotTheDestination as error:
            state.refusal = error
            self._failures.record(name, failures.Kind.UNKNOWN, str(error), now)
            if state.logged != str(error):
                log.error("destination_unknown", store=name, reason=str(error))
        except TransientStorageError as error:
            state.refusal = error
            if is_machine_fault(error):  # this machine could not ask: nothing is known of the destination
                state.checked_at = None
                return
            failure = self._failures.record(name, failures.Kind.SILENT, f"it does not answer: {error}", now)
            if failure is not None and failure.is_fault:
                since = failure.since.strftime("%Y-%m-%d %H:%M:%S")
                silent = f"no answer to this machine since {since} UTC"
                if failure.kind is not failures.Kind.SILENT:
                    silent = f"{failure.reason}, since {since} UTC, and now it does not answer"
                state.refusal = DestinationSilent(
                    f"{silent}: {error}",
                    store=name,
                    retry_after=error.retry_after,
                )
        except StorageError as error:
            state.refusal = error
        except LedgerError:
            state.checked_at = None
            raise
        else:
            if not state.marker.refuses:
                writes, state.writes = state.writes, None
                self._failures.record_readable(name, writes, state.write_error, now)
        state.logged = str(state.refusal or "")


def _again(error: StorageError) -> StorageError:
    """Return a copy to raise: threads that raise one object mix up its traceback. The cause tells whose fault it is."""
    again = copy.copy(error)
    again.__cause__, again.__context__ = error.__cause__, error.__context__
    return again
