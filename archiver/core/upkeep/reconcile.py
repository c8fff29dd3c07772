"""The reconcile: compare the ledger with the buckets, and repair the ledger.

The buckets decide (design.md). An asset with an undamaged manifest everywhere is archived, whatever the ledger says;
one whose manifest is gone is due again. Every repair is logged: the ledger was lost, or another path failed.

More gaps at once than `gaps.limit` suggest a wrong bucket or a mass deletion, and are left to a person; but what 100ms
still has is copied again where the destination's marker proves that it is the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog

from archiver.core.deadlines import is_over, source_ends_at
from archiver.core.destinations import breaker
from archiver.core.judging import Scope, as_known
from archiver.core.locks import Lock, acquire
from archiver.core.records import end_records, keys
from archiver.core.records.commit import LACKING, committed, damaged_settlement
from archiver.core.upkeep.applied_tombstones import AppliedTombstones
from archiver.core.upkeep.contradicted import Contradiction, Contradictions
from archiver.core.upkeep.erasing import Eraser
from archiver.core.upkeep.expiring import Expirer
from archiver.core.upkeep.full_reads import FullReads
from archiver.core.upkeep.gaps import (
    ANY,
    CHANGES,
    Gap,
    Gaps,
    archived_at_quorum,
    judge_gap,
    limit,
    note_away,
    replication,
)
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.rebuild import Identities, Rebuilder, is_newer
from archiver.core.upkeep.reopening import reopen
from archiver.core.upkeep.reports import BEGAN, RECONCILE_FACT, reconcile_is_overdue
from archiver.core.upkeep.retrying import is_outdated
from archiver.core.upkeep.undelivered import Undelivered
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LedgerError
from archiver.ledger.models import REMOVED_STATES, AssetState, CopyState, Row
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend
from storage_backends.errors import AccessDenied, StorageError

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOCK_NAME = "reconcile"
LOCK_TTL = timedelta(minutes=10)  # extended while the run goes on
EXTEND_EVERY = 500  # manifests or rows: seconds
RECENT = timedelta(minutes=1)
"""By how much times in the ledger may differ between processes."""
FILLED_AT_ONCE = 1000
"""Assets reopened in one run for a destination that was added, the most urgent first."""

_STORED_STATES = (AssetState.ARCHIVED, AssetState.QUARANTINED)
_WITHOUT_END = REMOVED_STATES | {AssetState.ARCHIVED}
"""States whose end record is outdated."""


def _ignore(_info: ObjectInfo) -> None:
    """Note nothing of what is listed."""


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """Counts of assets, but for `manifests`."""

    manifests: int
    entered: int  # archived by their manifests, which the ledger did not know
    reopened: int  # a manifest is missing, and 100ms still has the asset
    missing_copies: int  # a manifest is missing, 100ms has deleted the asset or it was archived at the quorum
    unreadable: int  # manifests that cannot be understood
    found: int = 0  # unknown to the ledger, with an end record or a manifest at some destinations only
    damaged: int = 0  # of the missing copies, those that were removed
    would_change: int = 0  # left as they are: too many gaps at once
    would_change_at: tuple[str, ...] = ()  # the destinations that lack them
    erased: int = 0  # erasures and expiries that were finished
    erasing: int = 0  # that could not be finished
    contradicted: int = 0  # archived by the ledger, and not by a manifest written since: it was rolled back

    @property
    def stopped(self) -> bool:
        return self.would_change > 0


class Unidentified:
    """Destinations without markers."""

    def check_all(self) -> bool:
        return True

    def is_identified(self, _name: str, /) -> bool:
        return False

    def began_empty_at(self, _name: str, /) -> datetime | None:
        return None

    def filling(self) -> list[str]:
        return []

    def filled(self, _name: str, /) -> None:
        """No marker keeps it."""


class Reconciler:
    """Memory during a run: about 200 bytes for each manifest and destination."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        scope: Scope,
        clock: Callable[[], datetime],
        identities: Identities | None = None,
        events_wanted: bool = False,
        eraser: Eraser | None = None,
        expirer: Expirer | None = None,
        readers: int = 1,
        key_template: str = keys.DEFAULT_TEMPLATE,
    ) -> None:
        """`readers`: how many assets that the ledger may not know are read at the same time."""
        self._expirer = expirer
        eraser = eraser or Eraser(ledger=ledger, destinations=destinations, clock=clock)
        self._tombstones = AppliedTombstones(
            ledger=ledger, destinations=destinations, eraser=eraser, clock=clock
        )
        self._ledger = ledger
        self._destinations = list(destinations)
        self._clock = clock
        self._identities = identities or Unidentified()
        self._undelivered = Undelivered(
            ledger=ledger, destinations=destinations, clock=clock, wanted=events_wanted
        )
        self._rebuilder = Rebuilder(
            ledger=ledger,
            destinations=destinations,
            scope=scope,
            clock=clock,
            identities=self._identities,
            readers=readers,
            key_template=key_template,
        )

    def reconcile(
        self, *, confirmed: bool = False, fill: bool = True, on_progress: OnProgress = ignore_progress
    ) -> ReconcileResult | None:
        """Compare manifests and end records with the ledger, in both directions. `confirmed`: a person says that the
        gaps are real, however many. `fill`: what an added destination lacks is copied from 100ms; False: it is only
        noted, and the caller replicates it. `on_progress`: how far it is. Returns None when another reconcile is
        running. Idempotent. Raises StorageError when a destination cannot be listed in full, or is not the one that the
        ledger knows; LedgerError."""
        with acquire(self._ledger, LOCK_NAME, LOCK_TTL) as lock:
            if lock is None:
                return None
            try:
                return self._compare(lock, confirmed, fill, on_progress)
            except StorageError:
                with suppress(LedgerError):
                    note_away(self._ledger, [ANY], self._clock())
                raise

    def check_destinations(self) -> None:
        """Check the identity of every destination, and reconcile when one was added, or the ledger was not compared
        with them for long (the hourly reconcile fails or is killed) or ever (it may have been lost). For each sweep.
        Idempotent. Raises LedgerError."""
        if not self._identities.check_all():
            return
        self._record_first_delivery()
        if not self._identities.filling() and not reconcile_is_overdue(self._ledger, self._clock()):
            return
        try:
            self.reconcile()
        except StorageError as error:
            log.error("reconcile_failed", reason=str(error))

    def restored(self, manifests: Iterable[ObjectKey]) -> int:
        """Enter assets of these manifests that the ledger knows as not archived, and that are by now; how many. For a
        caller that has just repaired copies. Idempotent. Raises LedgerError."""
        known = [key for key in manifests if self._row(key) is not None]
        return self._rebuilder.enter_archived(known)[0]

    # -- inside --------------------------------------------------------------------------------------------

    def _compare(self, lock: Lock, confirmed: bool, fill: bool, on_progress: OnProgress) -> ReconcileResult:
        started = self._clock()
        resending = self._undelivered.look()
        contradictions = self._new_contradictions()
        note = resending.note if resending else _ignore

        def note_manifest(info: ObjectInfo) -> None:
            note(info)
            contradictions.note(info)

        listed = [
            self._listed(
                store, keys.MANIFESTS, lock, _counting(on_progress, f"listing {store.name}"), note_manifest
            )
            for store in self._destinations
        ]
        buried = [self._listed(store, keys.TOMBSTONES, lock) for store in self._destinations]
        came_back = self._tombstones.apply(listed, buried, partial(_extending, lock=lock))
        everywhere = set(listed[0]).intersection(*listed[1:]) if listed else set()
        self._rebuilder.compare_folders_with(listed)
        ends = set().union(*(self._listed(store, keys.ENDS, lock, note=note) for store in self._destinations))
        ends -= {key for key in ends if keys.is_tombstone(key)}
        self._rebuilder.read_back_what_ended(ends)
        reads = FullReads(self._ledger, started)
        entered, unreadable = self._rebuilder.enter_archived(
            _extending(
                sorted(everywhere), lock, _counting(on_progress, "reading manifests", len(everywhere))
            ),
            reads,
        )
        reads.save()
        partly = set().union(*listed) - everywhere
        found, not_read = self._rebuilder.enter_partial(_extending(sorted(partly), lock))
        found += self._rebuilder.enter_ends(_extending(sorted(ends), lock), contradictions.is_later)
        gaps = self._gaps(listed, everywhere, started, lock, on_progress, contradictions)
        on_progress("repairing")
        reopened, would_change = self._close(gaps, lock, confirmed, fill)
        said = [contradictions.settle(row) for row in _extending(gaps.suspect, lock, every=1)]
        self._delete_outdated_end_records(lock, contradictions, reads)
        self._write_end_records(lock)
        if self._expirer is not None and gaps.expired:
            gone = list(self._expirer.gone(_extending(gaps.expired, lock)))
            log.info("expired_by_rule", assets=len(gone), left=len(gaps.expired) - len(gone))
            for _ in _extending(self._expirer.expire(gone), lock, every=1):
                pass  # what cannot be finished is looked at again below
        removals, waiting = self._tombstones.finish(came_back)
        done = [
            each.is_done for each in _extending(removals, lock, _counting(on_progress, "erasing"), every=1)
        ]
        erased, erasing = sum(done), waiting + len(done) - sum(done)
        if resending is not None:
            resending.end()
        self._undelivered.record()
        result = ReconcileResult(
            manifests=len(everywhere),
            entered=entered,
            reopened=reopened + said.count(Contradiction.REOPENED),
            missing_copies=len(gaps.of(Gap.MISSING_COPY)) + len(gaps.of(Gap.DAMAGED)),
            unreadable=unreadable + not_read + said.count(Contradiction.UNREADABLE),
            found=found,
            damaged=len(gaps.of(Gap.DAMAGED)),
            would_change=would_change,
            would_change_at=self._lacking_at(gaps) if would_change else (),
            erased=erased,
            erasing=erasing,
            contradicted=len(said) - said.count(Contradiction.NONE) - said.count(Contradiction.UNREADABLE),
        )
        self._tell(result, started)
        return result

    def _new_contradictions(self) -> Contradictions:
        return Contradictions(
            ledger=self._ledger,
            destinations=self._destinations,
            rebuilder=self._rebuilder,
            clock=self._clock,
        )

    def _tell(self, result: ReconcileResult, started: datetime) -> None:
        summary = {**asdict(result), "stopped": result.stopped}
        times = {BEGAN: started.isoformat(), "at": self._clock().isoformat()}
        self._ledger.remember(RECONCILE_FACT, {**summary, **times})
        if result.stopped:
            log.error(
                "reconcile_stopped",
                would_change=result.would_change,
                stores=list(result.would_change_at),
                advice="look at the destinations; if the copies are really gone: `archiver reconcile --yes`",
            )
        event = log.warning if result.reopened or result.unreadable or result.missing_copies else log.info
        event("reconcile_ended", **summary)

    def _listed(
        self,
        store: StorageBackend,
        prefix: str,
        lock: Lock,
        count: Callable[[int], None] = lambda _number: None,
        note: Callable[[ObjectInfo], None] = _ignore,
    ) -> set[ObjectKey]:
        found = set()
        for info in _extending(store.list(prefix), lock, count):
            if info.key.endswith(".json"):
                found.add(info.key)
                note(info)
        return found

    def _record_first_delivery(self) -> None:
        """Record that events are wanted from now on, rather than at the next reconcile."""
        try:
            if self._undelivered.is_unrecorded():
                self._undelivered.record()
        except StorageError as error:
            log.warning("delivery_record_not_written", reason=str(error))

    def _row(self, key: ObjectKey) -> Row | None:
        asset_id = keys.asset_id_of(key)
        return self._ledger.get(asset_id) if asset_id else None

    def _gaps(
        self,
        listed: Sequence[set[ObjectKey]],
        everywhere: set[ObjectKey],
        started: datetime,
        lock: Lock,
        on_progress: OnProgress,
        contradictions: Contradictions,
    ) -> Gaps:
        gaps = Gaps()
        filling = set(self._identities.filling())
        began = [self._identities.began_empty_at(store.name) for store in self._destinations]
        now = self._clock()
        not_working = {breaker.destination_of(name) for name in breaker.not_closed(self._ledger, now)}
        note_away(self._ledger, not_working.intersection(store.name for store in self._destinations), now)
        replicating = replication(self._ledger, now)
        comparing = _counting(on_progress, "comparing with the ledger", len(everywhere))
        for row in _extending(self._ledger.rows(_STORED_STATES), lock, comparing):
            gaps.rows += 1
            key = keys.manifest_key(row.asset_id, row.created_at)
            if key in everywhere:
                if contradictions.is_suspect(row, key):
                    gaps.suspect.append(row)
                self._note(row, ())
                continue
            lacking = tuple(n for n, manifests in enumerate(listed) if key not in manifests)
            if self._expirer is not None and self._expirer.term_is_over(row):
                if len(lacking) == len(listed) and self._proved(lacking):
                    gaps.expired.append(row)
                continue  # a rule of the bucket deletes it, or the next expiry does
            names = [self._destinations[n].name for n in lacking]
            others = [store.name for store in self._destinations if store.name not in names]
            ended = source_ends_at(row)
            at_quorum = archived_at_quorum(row, names, others, now, replicating)
            tried = at_quorum and all(_is_before(began[n], row.changed_at) for n in lacking)
            gap = judge_gap(
                over=is_over(row, now),
                whole_somewhere=len(lacking) < len(listed),
                expected=all(
                    _never_held(row.copies.get(name), is_newer(began[n], ended), name in filling)
                    for n, name in zip(lacking, names, strict=True)
                ),
                filling=filling.issuperset(names) and not tried,
                doubted=row.state is AssetState.QUARANTINED,
                at_quorum=at_quorum,
            )
            # an added destination may lack a million: a request for each would take hours
            doubtful = row.changed_at >= started - RECENT or any(
                row.copies.get(name) is CopyState.WHOLE for name in names
            )
            if (doubtful or gap in CHANGES) and self._committed_since(key, lacking):
                continue
            if gap not in CHANGES:  # else it is reopened, damaged, or left to a person
                self._note(row, names)
            gaps.of(gap).append((row.asset_id, lacking))
            if gap is Gap.DAMAGED:
                log.error("copy_missing", asset_id=row.asset_id, key=key, stores=names)
        return gaps

    def _note(self, row: Row, lacking: Collection[str]) -> None:
        """Record what the manifests say of each destination."""
        copies = {
            store.name: CopyState.LACKING if store.name in lacking else self._copy_at(store, row)
            for store in self._destinations
        }
        if copies != row.copies:
            self._ledger.note_copies(row, copies)

    def _copy_at(self, store: StorageBackend, row: Row) -> CopyState:
        """What a listed manifest shows. A copy that is known as damaged stays so; one that an archived asset was not
        known to have may be doubted or marked as damaged: its manifest is read. A row of an earlier version knows of no
        copy."""
        known = row.copies.get(store.name)
        if known is CopyState.DAMAGED:
            return known
        if known is CopyState.WHOLE or not row.copies or row.state is not AssetState.ARCHIVED:
            return CopyState.WHOLE
        try:
            is_whole = committed(store, keys.manifest_key(row.asset_id, row.created_at)) is not None
        except StorageError as error:
            log.warning("copy_not_read", asset_id=row.asset_id, store=store.name, reason=str(error))
            return CopyState.LACKING
        return CopyState.WHOLE if is_whole else CopyState.DAMAGED

    def _committed_since(self, key: ObjectKey, lacking: Iterable[int]) -> bool:
        """Return whether the asset was archived after the lists were made."""
        return all(self._destinations[n].stat(key) is not None for n in lacking)

    def _close(self, gaps: Gaps, lock: Lock, confirmed: bool, fill: bool) -> tuple[int, int]:
        """Repair the ledger; how many assets were reopened, and how many were left as they are."""
        reopened = self._fill(gaps.of(Gap.FILL), lock) if fill else 0
        confirmed = confirmed or gaps.changes <= limit(gaps.rows)
        withheld = 0
        for asset_id, lacking in _extending(gaps.of(Gap.REOPEN), lock):
            if confirmed or self._proved(lacking):
                reopened += self._reopen(asset_id, lacking)
            else:
                withheld += 1
        if not confirmed:
            return reopened, withheld + len(gaps.of(Gap.DAMAGED)) + len(gaps.of(Gap.VANISHED))
        for asset_id, lacking in _extending(gaps.of(Gap.VANISHED), lock):
            reopened += self._reopen(asset_id, lacking)
        for asset_id, lacking in _extending(gaps.of(Gap.DAMAGED), lock):
            self._damage(asset_id, {self._destinations[n].name for n in lacking})
        return reopened, withheld

    def _lacking_at(self, gaps: Gaps) -> tuple[str, ...]:
        numbers = {n for gap in CHANGES for _, lacking in gaps.of(gap) for n in lacking}
        return tuple(self._destinations[n].name for n in sorted(numbers))

    def _fill(self, lacked: Sequence[tuple[str, tuple[int, ...]]], lock: Lock) -> int:
        """Reopen what an added destination lacks, FILLED_AT_ONCE at a time; it is filled when nothing is left."""
        now, later = lacked[:FILLED_AT_ONCE], lacked[FILLED_AT_ONCE:]
        due = sum(
            self._reopen(asset_id, lacking, is_stored=len(lacking) < len(self._destinations))
            for asset_id, lacking in _extending(now, lock)
        )
        if due:
            log.warning("filling_added_destination", due=due, left=len(later))
        left = {self._destinations[n].name for _, lacking in later for n in lacking}
        for name in self._identities.filling():
            if name not in left:
                self._identities.filled(name)
        return due

    def _proved(self, lacking: Iterable[int]) -> bool:
        return all(self._identities.is_identified(self._destinations[n].name) for n in lacking)

    def _reopen(self, asset_id: str, lacking: Iterable[int], is_stored: bool = False) -> bool:
        """`is_stored`: whole at another destination, and so not at risk."""
        row = self._ledger.get(asset_id)
        if row is None or row.state not in _STORED_STATES:
            return False
        if not is_stored:
            log.error("manifest_missing", asset_id=asset_id, key=keys.manifest_key(asset_id, row.created_at))
        gone = dict.fromkeys((self._destinations[n].name for n in lacking), CopyState.LACKING)
        reopen(self._ledger, asset_id, gone, keep_stored=is_stored)
        return True

    def _damage(self, asset_id: str, lacking: set[str]) -> None:
        row = self._ledger.get(asset_id)
        if row is None or row.state is not AssetState.ARCHIVED:
            return
        copies: Mapping[str, Sequence[str]] = {
            store.name: (LACKING,) if store.name in lacking else () for store in self._destinations
        }
        how = damaged_settlement(
            asset_id, copies, stored_bytes=row.stored_bytes, stored_objects=row.stored_objects
        )
        self._ledger.record_archived(as_known(row), how)

    def _write_end_records(self, lock: Lock) -> None:
        for row in _extending(self._ledger.rows(end_records.RECORDED_STATES), lock):
            key = keys.end_record_key(row.asset_id, row.created_at)
            lacking = [store for store in self._destinations if store.stat(key) is None]
            if lacking:
                end_records.write(
                    lacking,
                    as_known(row),
                    row.state,
                    row.reason or "",
                    self._clock(),
                    acknowledged=row.acknowledged,
                    history=row.history,
                )

    def _delete_outdated_end_records(
        self, lock: Lock, contradictions: Contradictions, reads: FullReads
    ) -> None:
        """Delete the end records of assets that are archived or erased by now, or that a person wants archived after
        all. One that was refuted by every byte, and must not be deleted, is noted in `reads`."""
        for store in self._destinations:
            for key in _extending(sorted(self._listed(store, keys.ENDS, lock)), lock):
                if keys.is_tombstone(key):
                    continue
                row = self._row(key)
                if row is None or not (row.state in _WITHOUT_END or is_outdated(store, key, row)):
                    continue
                record = end_records.read(store, key) if row.state is AssetState.ARCHIVED else None
                was_later = record is not None and contradictions.is_later(record, row)
                if was_later and reads.knows(row):
                    continue
                if record is not None and not contradictions.is_refuted(row, record):
                    continue
                if not self._delete_if_allowed(store, key) and was_later:
                    reads.note(row.asset_id)
        reads.save()

    def _delete_if_allowed(self, store: StorageBackend, key: ObjectKey) -> bool:
        """A retention policy must not keep the reconcile from ending: the manifest says more than an end record."""
        try:
            store.delete(key)
        except AccessDenied as error:
            log.info("end_record_left", store=store.name, key=key, reason=str(error))
            return False
        return True


def _never_held(known: CopyState | None, added_since: bool, filling: bool) -> bool:
    """Whether a destination that lacks an asset is known never to have held it. `added_since`: it was added, or adopted
    as a new one, after the source had ended. What is known is of another bucket while it is `filling`."""
    if known is CopyState.LACKING:
        return True
    return added_since and (known is not CopyState.WHOLE or filling)


def _is_before(added_at: datetime | None, moment: datetime) -> bool:
    return added_at is not None and added_at < moment


def _counting(on_progress: OnProgress, phase: str, total: int | None = None) -> Callable[[int], None]:
    return lambda number: on_progress(phase, number, max(total, number) if total is not None else None)


def _extending(
    items: Iterable[T],
    lock: Lock,
    count: Callable[[int], None] = lambda _number: None,
    every: int = EXTEND_EVERY,
) -> Iterator[T]:
    """Yield `items`, and extend the lock meanwhile. `count` is told now and then how many were yielded."""
    for number, item in enumerate(items):
        if number % every == 0:
            lock.extend()
            count(number)
        yield item
