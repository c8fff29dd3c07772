"""Checks that destinations are the ones that the ledger knows, before anything is written or concluded.

The marker of each (`identity`) is read when it is used and CHECK_EVERY has passed, and once more before a
manifest is written. What is found wrong here stops this machine alone, which the ledger is told (`holds`).
"""

from __future__ import annotations

import copy
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

import structlog

from archiver.core.destinations import breaker, failures
from archiver.core.destinations.identity import (
    MAX_MARKER_BYTES,
    Identity,
    Manifests,
    Marker,
    Memory,
    NoMarker,
    Verdict,
    identify,
    is_of_another,
    parse_marker,
)
from archiver.core.errors import DestinationSilent, NotTheDestination
from archiver.core.locks import acquire
from archiver.core.machine import is_machine_fault
from archiver.core.records import keys
from archiver.hms.models import parse_time
from archiver.ledger.base import Assets, Facts, Ledger
from archiver.ledger.errors import LedgerError
from archiver.ledger.models import AssetState, Row
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectSpec, StorageBackend
from storage_backends.errors import (
    BucketMissing,
    DestinationRefuses,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
)

log = structlog.get_logger(__name__)

FACT = "destination:"
"""Of the names of the ledger's facts that say what a destination is. Kept for as long as the ledger is."""

CHECK_EVERY = timedelta(seconds=20)  # one small request per process and destination, while it is used
CHECK_BEFORE_COMMIT = timedelta(seconds=3)
EVIDENCE_FOR = timedelta(minutes=5)  # the manifests of what is not the right one are not counted anew so soon
UNMARKED_FOR = timedelta(minutes=10)  # a marker that could not be written is not tried again so soon
LOCK_NAME = "identify"
LOCK_TTL = timedelta(minutes=2)
LOCK_TRIES = 150
LOCK_PAUSE = timedelta(milliseconds=100)
SAMPLE = 20  # of the archived assets, looked for one by one
LISTED = 100  # of the manifests that are there, looked up in the ledger

_STORED = (AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.DAMAGED)


@dataclass(frozen=True, slots=True)
class Remembered:
    """The ledger's fact of one destination. `id`: None while it was not identified yet. `began_empty`: nothing was
    archived there at `created`. `filling`: what it lacks for that reason is being copied. `removed`: it was taken out
    of the settings."""

    id: str | None
    created: datetime | None = None
    began_empty: bool = False
    filling: bool = False
    removed: bool = False


@dataclass(slots=True)
class _State:
    """What this process knows of one destination."""

    store: StorageBackend
    lock: threading.RLock = field(default_factory=threading.RLock)
    id: str | None = None  # the ledger may forget it meanwhile
    checked_at: datetime | None = None
    refusal: StorageError | None = None  # what every use of it raises now
    proved: bool = False  # the marker was read, and is the right one
    refuses: bool = False  # to be read at all
    said: str = ""
    unchecked: bool = False  # and it was said
    unmarkable_since: datetime | None = None  # the marker could not be written
    unwritable: bool = False  # the marker's workspaces cannot be added to, and it was said
    refuted: tuple[datetime, Manifests] | None = None  # what was found when it was not the right one
    writes: bool | None = None  # whether the last write succeeded; None: none since the ledger was told
    write_error: str = ""


class Destinations:
    """Of one process. Safe to use from several threads."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        stores: Sequence[StorageBackend],
        workspace: str | None,
        clock: Callable[[], datetime],
        place: str,
        trouble_lifetime: timedelta = timedelta(minutes=30),
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`workspace`: ours, see `hms.workspace`. `clock`: the ledger's. `place`: this machine, for people.
        `trouble_lifetime`: how long a trouble that is not met again is still told; longer than between two sweeps."""
        self._ledger = ledger
        self._states = {store.name: _State(store) for store in stores}
        self._workspace = workspace
        self._clock = clock
        self._place = place
        self._trouble_lifetime = trouble_lifetime
        self._pause = pause

    # -- for whoever uses a destination --------------------------------------------------------------------

    def confirm(self, name: str, max_age: timedelta = CHECK_EVERY) -> None:
        """Return when `name` is the destination that the ledger knows, as checked within `max_age`. Raises
        NotTheDestination, DestinationSilent, the StorageError that it answered; LedgerError."""
        state = self._states[name]
        with state.lock:
            now = self._clock()
            age = None if state.checked_at is None else now - state.checked_at
            if age is None or not timedelta(0) <= age < max_age:
                self._check(state, now)
            if state.refusal is not None:
                raise _again(state.refusal)

    def confirmed(self, name: str) -> None:
        """Raise what the last check found, without making one: for calls that must not wait."""
        refusal = self._states[name].refusal
        if refusal is not None:
            raise _again(refusal)

    def wrote(self, name: str, error: StorageError | None) -> None:
        """Note how a write ended, to be told to the ledger at the next check. Does not wait."""
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

    def proved(self, name: str) -> bool:
        """Whether the destination's marker was read and is the one that the ledger remembers. Raises as `confirm`."""
        self.confirm(name)
        return self._states[name].proved

    def began_empty_at(self, name: str) -> datetime | None:
        """When the destination was added with nothing in it; None when it was not. Raises LedgerError."""
        remembered = self._recall(name)
        return remembered.created if remembered is not None and remembered.began_empty else None

    def filling(self) -> list[str]:
        """Destinations that were added, and lack what is archived elsewhere and still to be had at 100ms."""
        return [name for name in self._states if (one := self._recall(name)) is not None and one.filling]

    def filled(self, name: str) -> None:
        """Nothing more is to be copied there for being new. Repeatable."""
        remembered = self._recall(name)
        if remembered is not None and remembered.filling:
            self._remember(name, remembered.id, remembered.created, remembered.began_empty)
            log.info("destination_filled", store=name)

    # -- at start and at each sweep ------------------------------------------------------------------------

    def check_all(self) -> bool:
        """Check every destination now, and say which were added or removed; whether all can be used. Raises
        LedgerError."""
        usable = True
        failures.clear_unused(self._ledger, self._states, self._place)
        for name in self._states:
            try:
                self.confirm(name, timedelta(0))
            except StorageError as error:
                usable = False
                log.warning("destination_not_usable", store=name, reason=str(error))
        for key in self._ledger.recall_all(FACT):
            name = key.removeprefix(FACT)
            remembered = self._recall(name)
            if name not in self._states and remembered is not None and not remembered.removed:
                log.warning("destination_removed", store=name, now=sorted(self._states))
                self._remember(name, remembered.id, remembered.created, remembered.began_empty, removed=True)
        return usable

    # -- for a person --------------------------------------------------------------------------------------

    def look(self, name: str) -> Identity:
        """What the destination is, with nothing written anywhere. Raises StorageError, LedgerError."""
        state = self._states[name]
        with state.lock:
            marker = self._read_marker(state.store)
            remembered = self._recall(name)
            if isinstance(marker, Marker) and remembered is not None and remembered.id == marker.id:
                return Identity(Verdict.KNOWN)
            return identify(
                self._memory(state, remembered),
                marker,
                self._manifests(state, self._clock()),
                self._workspace,
            )

    def adopt(self, name: str) -> Marker:
        """Take what answers under `name`, as it is now, for the destination from now on, because a person says so.
        What it lacks is missing because it is new: copied while 100ms has it, and otherwise only counted. The marker
        that is there then. Repeatable. Raises StorageError, LedgerError."""
        state = self._states[name]
        with state.lock:
            found = self._read_marker(state.store)
            marker = self._new_marker(began_empty=True)
            if isinstance(found, Marker):
                marker = replace(found, created=marker.created, began_empty=True)
            if self._workspace is not None:
                marker = marker.with_workspace(self._workspace)
            marker = self._write_marker(state.store, marker, anew=True)
            self._remember(name, marker.id, marker.created, began_empty=True, filling=True)
            state.checked_at, state.refuted, state.id = None, None, marker.id
            breaker.close(self._ledger, name)
            failures.clear(self._ledger, name, self._place)
            log.warning("destination_adopted", store=name, id=marker.id, by="a person")
            return marker

    # -- inside --------------------------------------------------------------------------------------------

    def _check(self, state: _State, now: datetime) -> None:
        name = state.store.name
        state.proved = state.refuses = False
        state.refusal = None
        state.checked_at = now
        try:
            self._identify(state, now)
        except NotTheDestination as error:
            state.refusal = error
            self._tell(state, failures.Kind.UNKNOWN, str(error), now)
            if state.said != str(error):
                log.error("destination_unknown", store=name, reason=str(error))
        except TransientStorageError as error:
            state.refusal = error
            if is_machine_fault(error):  # this machine could not ask: nothing is known of the destination
                state.checked_at = None
                return
            trouble = self._tell(state, failures.Kind.SILENT, f"it does not answer: {error}", now)
            if trouble is not None and trouble.is_fault:
                since = trouble.since.strftime("%Y-%m-%d %H:%M:%S")
                state.refusal = DestinationSilent(f"no answer to this machine since {since} UTC: {error}")
        except StorageError as error:
            state.refusal = error
        except LedgerError:
            state.checked_at = None
            raise
        else:
            if not state.refuses:
                self._tell_success(state, now)
        state.said = str(state.refusal or "")

    def _identify(self, state: _State, now: datetime) -> None:
        """Return when the destination can be used. Raises StorageError, LedgerError."""
        store = state.store
        try:
            marker = self._read_marker(store)
        except BucketMissing as error:
            if self._may_have_archived(state):
                raise NotTheDestination(f"{error}; assets were archived there") from error
            raise
        except TransientStorageError:
            raise
        except StorageError as error:  # such as a policy that does not name the marker
            self._cannot_check(state, error)
            self._see_whether_anything_can_be_read(state, now)
            return
        try:
            remembered = self._recall(store.name)
        except LedgerError:
            if isinstance(marker, Marker) and marker.id == state.id:
                state.proved = True  # as before the ledger went away
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
        """What is not simply known; one process at a time, for two must not give the same destination two ids."""
        store = state.store
        marker, remembered = self._read_marker(store), self._recall(store.name)
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
                    self._remember(store.name, None)
                raise NotTheDestination(
                    f"{found.why}. Nothing is written there and nothing concluded. Mend the mount or the setting; if "
                    f"it is right as it is: `archiver adopt '{store.name}'`"
                )

    def _adopt(
        self, state: _State, memory: Memory, marker: Marker | NoMarker, found: Identity, *, empty: bool
    ) -> None:
        store = state.store
        try:
            if not isinstance(marker, Marker):
                new = self._new_marker(began_empty=empty, id_before=memory.id)
                marker = self._write_marker(store, new, anew=marker is NoMarker.UNREADABLE)
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

    def _known(self, state: _State, marker: Marker, remembered: Remembered | None) -> None:
        if remembered is not None and remembered.removed:
            log.warning("destination_added", store=state.store.name, id=marker.id, reason="it is back")
            self._remember(
                state.store.name, marker.id, remembered.created, remembered.began_empty, filling=True
            )
        state.id, state.proved = marker.id, True
        self._add_workspace(state, marker)

    def _take(self, state: _State, marker: Marker, *, filling: bool) -> None:
        self._remember(state.store.name, marker.id, marker.created, marker.began_empty, filling=filling)
        state.id, state.proved = marker.id, True
        self._add_workspace(state, marker)

    def _add_workspace(self, state: _State, marker: Marker) -> None:
        """Another access key of the same installation: the marker names it too, or a later set-up would be refused."""
        if self._workspace is None or self._workspace in marker.workspaces or state.unwritable:
            return
        if is_of_another(marker, self._workspace):
            log.warning("destination_of_another_access_key", store=state.store.name, id=marker.id)
        try:
            self._write_marker(state.store, marker.with_workspace(self._workspace), anew=True)
        except StorageError as error:
            state.unwritable = True
            log.warning("destination_marker_not_written", store=state.store.name, reason=str(error))

    def _cannot_check(self, state: _State, error: StorageError) -> None:
        """Go on, as before there were markers."""
        if not state.unchecked:
            log.warning("destination_not_checked", store=state.store.name, reason=str(error))
        state.unchecked = True

    def _see_whether_anything_can_be_read(self, state: _State, now: datetime) -> None:
        """Tell people when listing is refused as well: no copy there can be verified. Attempts find out by themselves
        (core.destinations.probing)."""
        try:
            next(iter(state.store.list(keys.MANIFESTS)), None)
        except DestinationRefuses as error:
            state.refuses = True
            self._tell(state, failures.Kind.REFUSES, f"it refuses to be read: {error}", now)
        except StorageError:
            return  # it is found out soon enough

    def _read_marker(self, store: StorageBackend) -> Marker | NoMarker:
        try:
            return parse_marker(store.read(keys.MARKER, 0, MAX_MARKER_BYTES))
        except ObjectMissing:
            return NoMarker.ABSENT

    def _write_marker(self, store: StorageBackend, marker: Marker, *, anew: bool) -> Marker:
        """The marker that is there afterwards: another process may have been faster."""
        data = marker.to_bytes()
        only_if_absent = not anew and store.limits.conditional_create
        spec = ObjectSpec(keys.MARKER, "application/json", len(data), if_absent=only_if_absent)
        with suppress(ObjectExists, ObjectChanged):
            store.put(spec, data, crc32c(data))
        found = self._read_marker(store)
        if not isinstance(found, Marker):
            raise TransientStorageError(
                f"{store.name}/{keys.MARKER}: what was written is not what is read back"
            )
        return found

    def _new_marker(self, *, began_empty: bool, id_before: str | None = None) -> Marker:
        workspaces = (self._workspace,) if self._workspace is not None else ()
        return Marker(id_before or uuid.uuid4().hex, self._clock(), workspaces, began_empty)

    def _manifests(self, state: _State, now: datetime) -> Manifests:
        if state.refuted is not None and timedelta(0) <= now - state.refuted[0] < EVIDENCE_FOR:
            return state.refuted[1]
        return count_manifests(state.store, self._ledger)

    def _memory(self, state: _State, remembered: Remembered | None) -> Memory:
        others = [key for key in self._ledger.recall_all(FACT) if key != FACT + state.store.name]
        known_id = remembered.id if remembered is not None else None
        return Memory(
            id=known_id or state.id,
            expected=remembered is not None and not remembered.removed,
            others=bool(others),
            has_archived=next(_stored(self._ledger), None) is not None,
        )

    def _may_have_archived(self, state: _State) -> bool:
        remembered = self._recall(state.store.name)
        memory = self._memory(state, remembered)
        return memory.id is not None or (memory.has_archived and (memory.expected or not memory.others))

    def _expect_the_others(self, name: str, memory: Memory) -> None:
        """At the first look of all, everything that is configured was there before: one that is empty was not added."""
        if memory.others or memory.expected or not memory.has_archived:
            return
        for other in self._states:
            if other != name and self._recall(other) is None:
                self._remember(other, None)

    def _tell(
        self, state: _State, kind: failures.Kind, reason: str, now: datetime
    ) -> failures.Failure | None:
        try:
            return failures.record(
                self._ledger, state.store.name, self._place, kind, reason, now, self._trouble_lifetime
            )
        except LedgerError as error:
            log.warning("trouble_not_recorded", store=state.store.name, reason=str(error))
            return None

    def _tell_success(self, state: _State, now: datetime) -> None:
        """It can be read; whether it takes writes only a write can tell."""
        name, wrote, state.writes = state.store.name, state.writes, None
        try:
            before = failures.failure_on(self._ledger, name, self._place)
            if wrote is False:
                reason = f"it takes nothing: {state.write_error}"
                trouble = failures.record(
                    self._ledger,
                    name,
                    self._place,
                    failures.Kind.SILENT_TO_WRITES,
                    reason,
                    now,
                    self._trouble_lifetime,
                )
                if trouble.is_fault:
                    log.error("destination_takes_nothing", store=name, reason=reason)
            elif before is not None and (wrote or before.kind is not failures.Kind.SILENT_TO_WRITES):
                failures.clear(self._ledger, name, self._place)
                log.warning("destination_answers_again", store=name, after=before.reason)
        except LedgerError as error:
            log.warning("trouble_not_recorded", store=name, reason=str(error))

    def _recall(self, name: str) -> Remembered | None:
        fact = self._ledger.recall(FACT + name)
        if fact is None:
            return None
        marker_id = fact.get("id")
        return Remembered(
            id=marker_id if isinstance(marker_id, str) and marker_id else None,
            created=parse_time(fact.get("created")),
            began_empty=fact.get("began_empty") is True,
            filling=fact.get("filling") is True,
            removed=fact.get("removed") is True,
        )

    def _remember(
        self,
        name: str,
        marker_id: str | None,
        created: datetime | None = None,
        began_empty: bool = False,
        *,
        filling: bool = False,
        removed: bool = False,
    ) -> None:
        fact = {
            "id": marker_id,
            "created": created.isoformat() if created else None,
            "workspace": self._workspace,
            "began_empty": began_empty,
            "filling": filling,
            "removed": removed,
            "schema": 1,
        }
        self._ledger.remember(FACT + name, fact)


@contextmanager
def _waited_for(ledger: Facts, pause: Callable[[float], None]) -> Iterator[None]:
    """With the ledger's lock: the processes of a machine that starts all look at once."""
    for _ in range(LOCK_TRIES):
        with acquire(ledger, LOCK_NAME, LOCK_TTL) as lock:
            if lock is not None:
                yield
                return
        pause(LOCK_PAUSE.total_seconds())
    raise TransientStorageError("another process has been looking at the destinations for long")


def count_manifests(store: StorageBackend, ledger: Assets) -> Manifests:
    """Which of the archived assets have a manifest at `store`: of a sample of the ledger's, and of the first ones that
    are there. Raises StorageError, LedgerError."""
    found = 0
    for sample in (
        list(islice(_stored(ledger), SAMPLE)),
        _sampled(ledger),
    ):  # the latter reads the whole ledger
        found = sum(store.stat(keys.manifest_key(row.asset_id, row.created_at)) is not None for row in sample)
        if sample and 2 * found >= len(sample):
            return Manifests.MOST
    listed = [info.key for info in islice(store.list(keys.MANIFESTS), LISTED)]
    if found or any(_is_stored(ledger, key) for key in listed):
        return Manifests.SOME
    return Manifests.FOREIGN if listed else Manifests.NONE


def _sampled(ledger: Assets) -> list[Row]:
    """SAMPLE of the assets that are stored, of all ages alike: the oldest of a bucket are the first to be removed."""
    sample: list[Row] = []
    draw = random.Random(1)  # noqa: S311 - the same assets each time
    for number, row in enumerate(_stored(ledger)):
        if number < SAMPLE:
            sample.append(row)
        elif (place := draw.randrange(number + 1)) < SAMPLE:
            sample[place] = row
    return sample


def _stored(ledger: Assets) -> Iterator[Row]:
    """An asset that was quarantined by an earlier version has nothing stored."""
    return (row for row in ledger.rows(_STORED) if row.state is AssetState.ARCHIVED or row.stored_objects > 0)


def _is_stored(ledger: Assets, key: str) -> bool:
    asset_id = keys.asset_id_of(key)
    row = ledger.get(asset_id) if asset_id else None
    return row is not None and row.state in _STORED


def _is_known(remembered: Remembered | None, marker: Marker) -> bool:
    return remembered is not None and remembered.id == marker.id


def _again(error: StorageError) -> StorageError:
    """The same error, to be raised once more: one object raised by several threads mixes up their tracebacks. What it
    was raised from tells whose fault it is."""
    again = copy.copy(error)
    again.__cause__, again.__context__ = error.__cause__, error.__context__
    return again
