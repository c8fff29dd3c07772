"""Identify one destination by its marker: the one that the ledger knows, a new one, or a wrong one.

Writes the marker of a new one, and adds this installation's access key to a known one's.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from archiver.core.destinations import failures
from archiver.core.destinations.evidence import count_manifests, stored_rows
from archiver.core.destinations.identity import (
    Identity,
    IdentityVerdict,
    Manifests,
    Memory,
    identify,
    is_of_another,
)
from archiver.core.destinations.markers import Marker, NoMarker, read_marker, write_marker
from archiver.core.destinations.registry import Registered, Registry
from archiver.core.errors import NotTheDestination
from archiver.core.locks import acquire
from archiver.core.records import keys
from archiver.ledger.base import Facts, Ledger
from archiver.ledger.errors import LedgerError
from storage_backends.base import StorageBackend
from storage_backends.errors import BucketMissing, DestinationRefuses, StorageError, TransientStorageError

log = structlog.get_logger(__name__)

EVIDENCE_FOR = timedelta(minutes=5)  # before the manifests of a wrong destination are counted again
UNMARKED_FOR = timedelta(minutes=10)  # before writing a marker is retried
UNMARKED_LOOK = timedelta(minutes=1)  # before its manifests are looked for meanwhile
LOCK_NAME = "identify"
LOCK_TTL = timedelta(minutes=2)
LOCK_TRIES = 150
LOCK_PAUSE = timedelta(milliseconds=100)


class MarkerCheck:
    """The marker of one destination in one process. The caller serialises calls."""

    def __init__(
        self,
        store: StorageBackend,
        *,
        configured: Collection[str],
        ledger: Ledger,
        registry: Registry,
        machine_failures: failures.MachineFailures,
        workspace: str | None,
        clock: Callable[[], datetime],
        pause: Callable[[float], None],
    ) -> None:
        """`configured`: the names of all destinations."""
        self.store = store
        self._configured = configured
        self._ledger = ledger
        self._registry = registry
        self._failures = machine_failures
        self._workspace = workspace
        self._clock = clock
        self._pause = pause
        self.id: str | None = None  # the ledger may forget it meanwhile
        self.identified = False  # the marker was read, and is the one that the ledger remembers
        self.refuses = False  # to be read at all
        self._unchecked = False  # the marker cannot be read, which was logged
        self._unmarkable_since: datetime | None = None  # the marker could not be written
        self._looked_at: datetime | None = None  # whether an unmarked one still holds manifests
        self._unwritable = False  # no workspace can be added to the marker, which was logged
        self._refuted: tuple[datetime, Manifests] | None = None  # the evidence that it is not the right one

    def look(self, now: datetime) -> Identity:
        """Identify the destination without writing anything. Raises StorageError, LedgerError."""
        marker = read_marker(self.store)
        remembered = self._registry.recall(self.store.name)
        if isinstance(marker, Marker) and _is_known(remembered, marker):
            return Identity(IdentityVerdict.KNOWN)
        return identify(self._memory(remembered), marker, self._manifests(now), self._workspace)

    def adopt(self) -> Marker:
        """Make this store the destination, as a new one; return its marker. Idempotent.

        Raises StorageError, LedgerError.
        """
        found = read_marker(self.store)
        marker = self._new_marker(began_empty=True)
        if isinstance(found, Marker):
            marker = replace(found, created=marker.created, began_empty=True)
        if self._workspace is not None:
            marker = marker.with_workspace(self._workspace)
        marker = write_marker(self.store, marker, replace=True)
        self._registry.remember(
            self.store.name, Registered(marker.id, marker.created, began_empty=True, filling=True)
        )
        self._refuted, self.id = None, marker.id
        return marker

    def is_unchanged(self) -> bool:
        """Whether the marker that was last identified is still there: one read, without the ledger."""
        if not self.identified:
            return False
        try:
            marker = read_marker(self.store)
        except StorageError:
            return False
        return isinstance(marker, Marker) and marker.id == self.id

    def identify(self, now: datetime) -> None:
        """Return when the destination can be used. Raises StorageError, LedgerError."""
        self.identified = self.refuses = False
        store = self.store
        try:
            marker = read_marker(store)
        except BucketMissing as error:
            if self._may_have_archived():
                raise NotTheDestination(f"{error}; assets were archived there", store=store.name) from error
            raise
        except TransientStorageError:
            raise
        except StorageError as error:  # such as a policy that does not name the marker
            self._cannot_check(error)
            self._see_whether_anything_can_be_read(now)
            return
        try:
            remembered = self._registry.recall(store.name)
        except LedgerError:
            if isinstance(marker, Marker) and marker.id == self.id:
                self.identified = True  # as before the ledger went away
                return
            raise
        if isinstance(marker, Marker) and _is_known(remembered, marker):
            self._known(marker, remembered)
            return
        since = self._unmarkable_since
        unmarkable = since is not None and timedelta(0) <= now - since < UNMARKED_FOR
        if marker is NoMarker.ABSENT and unmarkable and self._is_as_it_was(now, remembered):
            return
        with _waited_for(self._ledger, self._pause):
            self._decide(now)

    def _is_as_it_was(self, now: datetime, remembered: Registered | None) -> bool:
        """Whether a destination that takes no marker still holds manifests, or never did. Looks each UNMARKED_LOOK: a
        disk may be unmounted long before its marker is written again."""
        if self._looked_at is not None and timedelta(0) <= now - self._looked_at < UNMARKED_LOOK:
            return True
        is_empty = next(iter(self.store.list(keys.MANIFESTS)), None) is None
        if is_empty and remembered is not None:
            return False
        self._looked_at = now
        if not is_empty and remembered is None:
            self._registry.remember(self.store.name, Registered(id=None))
        return True

    def _decide(self, now: datetime) -> None:
        """Identify an unknown destination, under a lock: two processes must not give it two ids."""
        store = self.store
        marker, remembered = read_marker(store), self._registry.recall(store.name)
        if isinstance(marker, Marker) and _is_known(remembered, marker):
            self._known(marker, remembered)
            return
        memory = self._memory(remembered)
        manifests = self._manifests(now)
        found = identify(memory, marker, manifests, self._workspace)
        self._refuted = (now, manifests) if found.verdict is IdentityVerdict.WRONG else None
        match found.verdict:
            case IdentityVerdict.KNOWN:  # the ledger forgot it, and this process did not
                assert isinstance(marker, Marker)
                self._take(marker, filling=False)
            case IdentityVerdict.ADOPT | IdentityVerdict.NEW | IdentityVerdict.RESTORE:
                self._expect_the_others(memory)
                self._adopt(memory, marker, found, empty=manifests is Manifests.NONE)
            case IdentityVerdict.WRONG:
                self._unmarkable_since = None
                self._expect_the_others(memory)
                if remembered is None and memory.has_archived:
                    self._registry.remember(store.name, Registered(id=None))
                raise NotTheDestination(
                    f"{store.name} is not the destination that the ledger knows: {found.why}. Nothing is written "
                    "there and nothing concluded. Fix the mount or the setting; if it is right as it is: "
                    f"`archiver adopt '{store.name}'`",
                    store=store.name,
                )

    def _adopt(self, memory: Memory, marker: Marker | NoMarker, found: Identity, *, empty: bool) -> None:
        store = self.store
        try:
            if not isinstance(marker, Marker):
                new = self._new_marker(began_empty=empty, id_before=memory.id)
                self._registry.intend(store.name, new.id)
                marker = write_marker(store, new, replace=marker is NoMarker.UNREADABLE)
        except TransientStorageError:
            raise
        except BucketMissing:
            raise
        except StorageError as error:
            self._unmarkable_since = self._looked_at = self._clock()
            self._cannot_check(error)
            if not empty and self._registry.recall(store.name) is None:
                self._registry.remember(
                    store.name, Registered(id=None)
                )  # once it is empty, it is not a new one
            return
        is_new = found.verdict is IdentityVerdict.NEW
        event = log.error if found.verdict is IdentityVerdict.RESTORE else log.warning if is_new else log.info
        names = {
            IdentityVerdict.RESTORE: "destination_marker_restored",
            IdentityVerdict.NEW: "destination_added",
        }
        event(
            names.get(found.verdict, "destination_adopted"), store=store.name, id=marker.id, reason=found.why
        )
        self._take(marker, filling=is_new)

    def _known(self, marker: Marker, remembered: Registered | None) -> None:
        if remembered is not None and remembered.removed:
            log.warning("destination_added", store=self.store.name, id=marker.id, reason="it is back")
            again = replace(remembered, id=marker.id, filling=True, removed=False)
            self._registry.remember(self.store.name, again)
        self.id, self.identified = marker.id, True
        self._add_workspace(marker)

    def _take(self, marker: Marker, *, filling: bool) -> None:
        registered = Registered(marker.id, marker.created, marker.began_empty, filling)
        self._registry.remember(self.store.name, registered)
        self.id, self.identified = marker.id, True
        self._add_workspace(marker)

    def _add_workspace(self, marker: Marker) -> None:
        """Add our access key to the marker, so that a later set-up with this key alone is not refused."""
        if self._workspace is None or self._workspace in marker.workspaces or self._unwritable:
            return
        if is_of_another(marker, self._workspace):
            log.warning("destination_of_another_access_key", store=self.store.name, id=marker.id)
        try:
            write_marker(self.store, marker.with_workspace(self._workspace), replace=True)
        except StorageError as error:
            self._unwritable = True
            log.warning("destination_marker_not_written", store=self.store.name, reason=str(error))

    def _cannot_check(self, error: StorageError) -> None:
        """Go on without a marker, as the versions before markers did."""
        if not self._unchecked:
            log.warning("destination_not_checked", store=self.store.name, reason=str(error))
        self._unchecked = True

    def _see_whether_anything_can_be_read(self, now: datetime) -> None:
        """Record it when listing is refused as well: no copy there can be verified. Attempts probe by themselves
        (core.destinations.probing)."""
        try:
            next(iter(self.store.list(keys.MANIFESTS)), None)
        except DestinationRefuses as error:
            self.refuses = True
            self._failures.record(
                self.store.name, failures.Kind.REFUSES, f"it refuses to be read: {error}", now
            )
        except StorageError:
            return  # the next call meets it

    def _new_marker(self, *, began_empty: bool, id_before: str | None = None) -> Marker:
        workspaces = (self._workspace,) if self._workspace is not None else ()
        return Marker(id_before or uuid.uuid4().hex, self._clock(), workspaces, began_empty)

    def _manifests(self, now: datetime) -> Manifests:
        if self._refuted is not None and timedelta(0) <= now - self._refuted[0] < EVIDENCE_FOR:
            return self._refuted[1]
        return count_manifests(self.store, self._ledger)

    def _memory(self, remembered: Registered | None) -> Memory:
        others = [name for name in self._registry.names() if name != self.store.name]
        known_id = remembered.id if remembered is not None else None
        return Memory(
            id=known_id or self.id,
            intended_id=self._registry.intended_id(self.store.name),
            expected=remembered is not None and not remembered.removed,
            others=bool(others),
            has_archived=next(stored_rows(self._ledger), None) is not None,
        )

    def _may_have_archived(self) -> bool:
        remembered = self._registry.recall(self.store.name)
        memory = self._memory(remembered)
        return memory.id is not None or (memory.has_archived and (memory.expected or not memory.others))

    def _expect_the_others(self, memory: Memory) -> None:
        """At the very first check, register every configured destination: an empty one was there before, not added."""
        if memory.others or memory.expected or not memory.has_archived:
            return
        for other in self._configured:
            if other != self.store.name and self._registry.recall(other) is None:
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
