"""Checks that destinations are the ones that the ledger knows, before anything is written or concluded.

The marker of each is read at its first use and whenever CHECK_EVERY has passed, and once more before a manifest is
written. What is found wrong stops this machine alone (`failures`).
"""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from archiver.core.destinations import breaker, failures
from archiver.core.destinations.evidence import count_manifests, stored_rows
from archiver.core.destinations.identity import (
    Identity,
    Manifests,
    Memory,
    Verdict,
    identify,
    is_of_another,
)
from archiver.core.destinations.markers import Marker, NoMarker, read_marker, write_marker
from archiver.core.destinations.registry import Registered, Registry
from archiver.core.errors import DestinationSilent, NotTheDestination
from archiver.core.locks import acquire
from archiver.core.machine import is_machine_fault
from archiver.core.records import keys
from archiver.ledger.base import Facts, Ledger
from archiver.ledger.errors import LedgerError
from storage_backends.base import StorageBackend
from storage_backends.errors import BucketMissing, DestinationRefuses, StorageError, TransientStorageError

log = structlog.get_logger(__name__)

CHECK_EVERY = timedelta(seconds=20)  # one small request per process and destination, while it is used
CHECK_BEFORE_COMMIT = timedelta(seconds=3)
EVIDENCE_FOR = timedelta(minutes=5)  # before the manifests of a wrong destination are counted again
UNMARKED_FOR = timedelta(minutes=10)  # before writing a marker is retried
LOCK_NAME = "identify"
LOCK_TTL = timedelta(minutes=2)
LOCK_TRIES = 150
LOCK_PAUSE = timedelta(milliseconds=100)


@dataclass(slots=True)
class _State:
    """What this process knows of one destination."""

    store: StorageBackend
    lock: threading.RLock = field(default_factory=threading.RLock)
    id: str | None = None  # the ledger may forget it meanwhile
    checked_at: datetime | None = None
    refusal: StorageError | None = None  # what every use of it raises now
    identified: bool = False  # the marker was read, and is the one that the ledger remembers
    refuses: bool = False  # to be read at all
    logged: str = ""
    unchecked: bool = False  # the marker cannot be read, which was logged
    unmarkable_since: datetime | None = None  # the marker could not be written
    unwritable: bool = False  # no workspace can be added to the marker, which was logged
    refuted: tuple[datetime, Manifests] | None = None  # the evidence that it is not the right one
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
        self._states = {store.name: _State(store) for store in stores}
        self._workspace = workspace
        self._clock = clock
        self._registry = Registry(ledger, workspace)
        self._failures = failures.MachineFailures(ledger, machine, failure_lifetime)
        self._pause = pause

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
        return self._states[name].identified

    def began_empty_at(self, name: str) -> datetime | None:
        """When the destination was added or adopted empty; None when it was not. Raises LedgerError."""
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
        return usable

    # -- for a person --------------------------------------------------------------------------------------

    def look(self, name: str) -> Identity:
        """Identify the destination without writing anything. Raises StorageError, LedgerError."""
        state = self._states[name]
        with state.lock:
            marker = read_marker(state.store)
            remembered = self._registry.recall(name)
            if isinstance(marker, Marker) and remembered is not None and remembered.id == marker.id:
                return Identity(Verdict.KNOWN)
            return identify(
                self._memory(state, remembered),
                marker,
                self._manifests(state, self._clock()),
                self._workspace,
            )

    def adopt(self, name: str) -> Marker:
        """Accept what answers under `name` as the destination, because a person says so; return its marker.

        It counts as new: what it lacks is copied while 100ms has it, and otherwise only counted. Idempotent. Raises
        StorageError, LedgerError.
        """
        state = self._states[name]
        with state.lock:
            found = read_marker(state.store)
            marker = self._new_marker(began_empty=True)
            if isinstance(found, Marker):
                marker = replace(found, created=marker.created, began_empty=True)
            if self._workspace is not None:
                marker = marker.with_workspace(self._workspace)
            marker = write_marker(state.store, marker, replace=True)
            self._registry.remember(
                name, Registered(marker.id, marker.created, began_empty=True, filling=True)
            )
            state.checked_at, state.refuted, state.id = None, None, marker.id
            breaker.close(self._ledger, name)
            self._failures.clear(name)
            log.warning("destination_adopted", store=name, id=marker.id, by="a person")
            return marker

    # -- inside --------------------------------------------------------------------------------------------

    def _check(self, state: _State, now: datetime) -> None:
        name = state.store.name
        state.identified = state.refuses = False
        state.refusal = None
        state.checked_at = now
        try:
            self._identify(state, now)
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
                state.refusal = DestinationSilent(
                    f"no answer to this machine since {since} UTC: {error}",
                    store=name,
                    retry_after=error.retry_after,
                )
        except StorageError as error:
            state.refusal = error
        except LedgerError:
            state.checked_at = None
            raise
        else:
            if not state.refuses:
                writes, state.writes = state.writes, None
                self._failures.record_readable(name, writes, state.write_error, now)
        state.logged = str(state.refusal or "")

    def _identify(self, state: _State, now: datetime) -> None:
        """Return when the destination can be used. Raises StorageError, LedgerError."""
        store = state.store
        try:
            marker = read_marker(store)
        except BucketMissing as error:
            if self._may_have_archived(state):
                raise NotTheDestination(f"{error}; assets were archived there", store=store.name) from error
            raise
        except TransientStorageError:
            raise
        except StorageError as error:  # such as a policy that does not name the marker
            self._cannot_check(state, error)
            self._see_whether_anything_can_be_read(state, now)
            return
        try:
            remembered = self._registry.recall(store.name)
        except LedgerError:
            if isinstance(marker, Marker) and marker.id == state.id:
                state.identified = True  # as before the ledger went away
                return
            raise
        if isinstance(marker, Marker) and _is_known(remembered, marker):
            self._known(state, marker, remembered)
            return
        since = state.unmarkable_since
        if marker is NoMarker.ABSENT and since is not None and timedelta(0) <= now - since < UNMARKED_FOR:
            return
        with _waited_for(self._ledger, self._pause):
            self._decide(state, now)

    def _decide(self, state: _State, now: datetime) -> None:
        """Identify an unknown destination, under a lock: two processes must not give it two ids."""
        store = state.store
        marker, remembered = read_marker(store), self._registry.recall(store.name)
        if isinstance(marker, Marker) and _is_known(remembered, marker):
            self._known(state, marker, remembered)
            return
        memory = self._memory(state, remembered)
        manifests = self._manifests(state, now)
        found = identify(memory, marker, manifests, self._workspace)
        state.refuted = (now, manifests) if found.verdict is Verdict.WRONG else None
        match found.verdict:
            case Verdict.KNOWN:  # the ledger forgot it, and this process did not
                assert isinstance(marker, Marker)
                self._take(state, marker, filling=False)
            case Verdict.ADOPT | Verdict.NEW | Verdict.RESTORE:
                self._expect_the_others(store.name, memory)
                self._adopt(state, memory, marker, found, empty=manifests is Manifests.NONE)
            case Verdict.WRONG:
                self._expect_the_others(store.name, memory)
                if remembered is None and memory.has_archived:
                    self._registry.remember(store.name, Registered(id=None))
                raise NotTheDestination(
                    f"{found.why}. Nothing is written there and nothing concluded. Fix the mount or the setting; if "
                    f"it is right as it is: `archiver adopt '{store.name}'`",
                    store=store.name,
                )

    def _adopt(
        self, state: _State, memory: Memory, marker: Marker | NoMarker, found: Identity, *, empty: bool
    ) -> None:
        store = state.store
        try:
            if not isinstance(marker, Marker):
                new = self._new_marker(began_empty=empty, id_before=memory.id)
                marker = write_marker(store, new, replace=marker is NoMarker.UNREADABLE)
        except TransientStorageError:
            raise
        except BucketMissing:
            raise
        except StorageError as error:
            state.unmarkable_since = self._clock()
            self._cannot_check(state, error)
            return
        is_new = found.verdict is Verdict.NEW
        event = log.error if found.verdict is Verdict.RESTORE else log.warning if is_new else log.info
        names = {
            Verdict.RESTORE: "destination_marker_restored",
            Verdict.NEW: "destination_added",
        }
        event(
            names.get(found.verdict, "destination_adopted"), store=store.name, id=marker.id, reason=found.why
        )
        self._take(state, marker, filling=is_new)

    def _known(self, state: _State, marker: Marker, remembered: Registered | None) -> None:
        if remembered is not None and remembered.removed:
            log.warning("destination_added", store=state.store.name, id=marker.id, reason="it is back")
            again = replace(remembered, id=marker.id, filling=True, removed=False)
            self._registry.remember(state.store.name, again)
        state.id, state.identified = marker.id, True
        self._add_workspace(state, marker)

    def _take(self, state: _State, marker: Marker, *, filling: bool) -> None:
        registered = Registered(marker.id, marker.created, marker.began_empty, filling)
        self._registry.remember(state.store.name, registered)
        state.id, state.identified = marker.id, True
        self._add_workspace(state, marker)

    def _add_workspace(self, state: _State, marker: Marker) -> None:
        """Add our access key to the marker, so that a later set-up with this key alone is not refused."""
        if self._workspace is None or self._workspace in marker.workspaces or state.unwritable:
            return
        if is_of_another(marker, self._workspace):
            log.warning("destination_of_another_access_key", store=state.store.name, id=marker.id)
        try:
            write_marker(state.store, marker.with_workspace(self._workspace), replace=True)
        except StorageError as error:
            state.unwritable = True
            log.warning("destination_marker_not_written", store=state.store.name, reason=str(error))

    def _cannot_check(self, state: _State, error: StorageError) -> None:
        """Go on without a marker, as the versions before markers did."""
        if not state.unchecked:
            log.warning("destination_not_checked", store=state.store.name, reason=str(error))
        state.unchecked = True

    def _see_whether_anything_can_be_read(self, state: _State, now: datetime) -> None:
        """Record it when listing is refused as well: no copy there can be verified. Attempts probe by themselves
        (core.destinations.probing)."""
        try:
            next(iter(state.store.list(keys.MANIFESTS)), None)
        except DestinationRefuses as error:
            state.refuses = True
            self._failures.record(
                state.store.name, failures.Kind.REFUSES, f"it refuses to be read: {error}", now
            )
        except StorageError:
            return  # the next call meets it

    def _new_marker(self, *, began_empty: bool, id_before: str | None = None) -> Marker:
        workspaces = (self._workspace,) if self._workspace is not None else ()
        return Marker(id_before or uuid.uuid4().hex, self._clock(), workspaces, began_empty)

    def _manifests(self, state: _State, now: datetime) -> Manifests:
        if state.refuted is not None and timedelta(0) <= now - state.refuted[0] < EVIDENCE_FOR:
            return state.refuted[1]
        return count_manifests(state.store, self._ledger)

    def _memory(self, state: _State, remembered: Registered | None) -> Memory:
        others = [name for name in self._registry.names() if name != state.store.name]
        known_id = remembered.id if remembered is not None else None
        return Memory(
            id=known_id or state.id,
            expected=remembered is not None and not remembered.removed,
            others=bool(others),
            has_archived=next(stored_rows(self._ledger), None) is not None,
        )

    def _may_have_archived(self, state: _State) -> bool:
        remembered = self._registry.recall(state.store.name)
        memory = self._memory(state, remembered)
        return memory.id is not None or (memory.has_archived and (memory.expected or not memory.others))

    def _expect_the_others(self, name: str, memory: Memory) -> None:
        """At the very first check, register every configured destination: an empty one was there before, not added."""
        if memory.others or memory.expected or not memory.has_archived:
            return
        for other in self._states:
            if other != name and self._registry.recall(other) is None:
                self._registry.remember(other, Registered(id=None))


@contextmanager
def _waited_for(ledger: Facts, pause: Callable[[float], None]) -> Iterator[None]:
    """Hold the ledger's lock: when a machine starts, all its processes check at once."""
    for _ in range(LOCK_TRIES):
        with acquire(ledger, LOCK_NAME, LOCK_TTL) as lock:
            if lock is not None:
                yield
                return
        pause(LOCK_PAUSE.total_seconds())
    raise TransientStorageError("another process has been checking the destinations for long")


def _is_known(remembered: Registered | None, marker: Marker) -> bool:
    return remembered is not None and remembered.id == marker.id


def _again(error: StorageError) -> StorageError:
    """Return a copy to raise: threads that raise one object mix up its traceback. The cause tells whose fault it is."""
    again = copy.copy(error)
    again.__cause__, again.__context__ = error.__cause__, error.__context__
    return again
