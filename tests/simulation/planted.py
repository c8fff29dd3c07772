"""Bugs to be planted, one at a time: each is the small mistake that its name says, made where the product is right.
`python -m tests.simulation --planted` shows which seeds find each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import archiver.core.attempt.archiver
import archiver.core.attempt.copying
import archiver.core.attempt.decisions
import archiver.core.attempt.looking
import archiver.core.attempt.rechecking
import archiver.core.attempt.saving
import archiver.core.destinations.breaker
import archiver.core.destinations.write_probe
import archiver.core.health
import archiver.core.records.commit
import archiver.core.records.end_records
import archiver.core.records.removal
import archiver.core.records.tombstones
import archiver.core.replication.repairer
import archiver.core.restore.drill
import archiver.core.restore.restorer
import archiver.core.upkeep.applied_tombstones
import archiver.core.upkeep.erasing
import archiver.core.upkeep.expiring
import archiver.core.upkeep.reconcile
import archiver.core.upkeep.scrub
import archiver.core.upkeep.status
import archiver.core.upkeep.sweep
import archiver.ledger.clock
import archiver.ledger.memory.leases
import archiver.transfer.checks
import worker.alerts.alerter
from archiver.core.alerts import Alert, AlertBook
from archiver.core.attempt.archiver import Archiver
from archiver.core.attempt.copying import Copier
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.outcomes import AlreadyArchived, Ended, WillRetry
from archiver.core.records.drill_records import DrillRecord
from archiver.core.records.verify import Verified
from archiver.core.replication.object_copier import ObjectCopier
from archiver.core.replication.repairer import Repairer
from archiver.core.replication.replicator import Replicator
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.scrub import Scrubber
from archiver.core.upkeep.scrub_copy import CopyChecker
from archiver.core.upkeep.terms import Terms
from archiver.hms.errors import HmsNotFound
from archiver.http.errors import BrokenOff
from archiver.http.transfer import Transfer
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState
from archiver.transfer.checks import Checks
from archiver.transfer.checksums import crc32c
from archiver.transfer.errors import SourceGone
from archiver.transfer.parts_upload import PartsUpload
from archiver.transfer.storing import StoreTools
from storage_backends.base import ObjectInfo, ObjectSpec
from storage_backends.conditional import Conditions
from storage_backends.optional import ObjectVersion

Plant = Callable[[ExitStack], None]
PLANTED: dict[str, Plant] = {}
"""By name."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    with ExitStack() as stack:
        PLANTED[name](stack)
        yield


def bug(name: str) -> Callable[[Plant], Plant]:
    def named(plant: Plant) -> Plant:
        PLANTED[name] = plant
        return plant

    return named


def _instead(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    assert inspect.getattr_static(owner, name, None) is not None, f"{owner} has no {name}"
    stack.enter_context(patch.object(owner, name, value))


def _sometimes(every: int) -> Callable[[], bool]:
    calls = 0

    def now() -> bool:
        nonlocal calls
        calls += 1
        return calls % every == 0

    return now


def _all_there(_store: Any, manifest: Any, *_: Any, **__: Any) -> Verified:
    return Verified(len(manifest.objects), 0, ())


# -- what is copied --------------------------------------------------------------------------------------------
@bug("a store that failed gets its manifest all the same")
def _(stack: ExitStack) -> None:
    real = Copier.copy
    _instead(stack, Copier, "copy", lambda self, items: replace(real(self, items), failed={}))
    _instead(stack, archiver.core.records.commit, "verify_listed", _all_there)


@bug("an object is taken for stored before it was sent")
def _(stack: ExitStack) -> None:
    now, real = _sometimes(20), StoreTools.put

    async def put(self: StoreTools, store: Any, spec: Any, part: Any) -> Any:
        if now():
            return ObjectInfo(spec.key, part.size_bytes, part.crc32c)
        return await real(self, store, spec, part)

    _instead(stack, StoreTools, "put", put)


@bug("what the store says it has stored is not compared")
def _(stack: ExitStack) -> None:
    async def believe(*_: Any) -> None:
        return

    _instead(stack, StoreTools, "verify", believe)


@bug("the source's checksum is not compared")
def _(stack: ExitStack) -> None:
    real = Checks.whole

    def whole(self: Any, size_bytes: int, crc32c: int) -> None:
        if self.info is not None:
            self.info = replace(self.info, crc32c=None, md5=None)
        real(self, size_bytes, crc32c)

    _instead(stack, Checks, "whole", whole)


@bug("a body that was cut is taken for whole")
def _(stack: ExitStack) -> None:
    real = Transfer.finish

    def finish(self: Transfer, error: BaseException | None) -> None:
        if isinstance(error, BrokenOff) and self.head is not None and self._file is not None:
            size_bytes = len(self._file.getvalue())
            self._file.seek(size_bytes)
            error = None
        real(self, None if isinstance(error, BrokenOff) and self.head is not None else error)

    _instead(stack, Transfer, "finish", finish)
    _instead(stack, Checks, "whole", lambda *_: None)
    _instead(stack, Checks, "size", lambda *_: None)


@bug("a file that changed at its source is mixed with what was stored of it before")
def _(stack: ExitStack) -> None:
    _instead(stack, Checks, "unchanged", lambda self, _info: self._request.known is not None)


@bug("a tree that changed while it was copied is not compared")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.attempt.saving, "changed_meanwhile", lambda *_: ())


@bug("the second destination is forgotten")
def _(stack: ExitStack) -> None:
    real = Archiver.__init__

    def init(self: Archiver, **given: Any) -> None:
        real(self, **{**given, "destinations": list(given["destinations"])[:1]})

    _instead(stack, Archiver, "__init__", init)


@bug("a manifest proves its asset though objects are missing")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.records.commit, "verify_listed", _all_there)


# -- who may write ---------------------------------------------------------------------------------------------
@bug("a lease that has ended may still settle")
def _(stack: ExitStack) -> None:
    _instead(stack, MemoryLedger, "_check", lambda *_: None)


@bug("an asset is leased to two workers at once")
def _(stack: ExitStack) -> None:
    _instead(stack, MemoryLedger, "_is_leased", lambda *_: False)


@bug("the lease is not confirmed before the commit, nor looked at meanwhile")
def _(stack: ExitStack) -> None:
    _instead(stack, Heartbeat, "confirm", lambda _self: None)
    _instead(stack, Heartbeat, "check", lambda _self: None)
    _instead(stack, MemoryLedger, "_check", lambda *_: None)


@bug("a store is trusted with conditions that it was not seen to honour")
def _(stack: ExitStack) -> None:
    _instead(stack, Conditions, "creates", property(lambda self: self._creates is not False))
    _instead(stack, Conditions, "replaces", property(lambda self: self._replaces is not False))
    _instead(stack, Conditions, "_ignored", lambda *_: None)


@bug("a scrub deletes what it does not know")
def _(stack: ExitStack) -> None:
    real = Scrubber.scrub

    def scrub(self: Any, *given: Any, **more: Any) -> Any:
        for store in self._destinations:
            for info in store.list(""):
                if not info.key.startswith(("recordings/", "manifests/", "ends/")):
                    store.delete(info.key)
        return real(self, *given, **more)

    _instead(stack, Scrubber, "scrub", scrub)


# -- time ------------------------------------------------------------------------------------------------------
@bug("a worker's own clock is believed")
def _(stack: ExitStack) -> None:
    def wrong(self: Any) -> datetime:
        process = self._elapsed.__self__
        now: datetime = process.wall_clock()
        return now

    _instead(stack, archiver.ledger.clock.LedgerClock, "__call__", wrong)


@bug("a wait may run past the deadline")
def _(stack: ExitStack) -> None:
    class FiveTimes:
        def __rfloordiv__(self, left: timedelta) -> timedelta:
            return 5 * left

    _instead(stack, archiver.ledger.memory.leases, "DEADLINE_DIVISOR", FiveTimes())
    _instead(
        stack,
        archiver.core.attempt.archiver,
        "decide",
        _with_delay(archiver.core.attempt.decisions.decide, timedelta(hours=20)),
    )


@bug("a wait may last for a week")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.ledger.memory.leases, "MAX_WAIT", timedelta(days=7))
    _instead(
        stack,
        archiver.core.attempt.archiver,
        "decide",
        _with_delay(archiver.core.attempt.decisions.decide, timedelta(days=3)),
    )
    _instead(stack, archiver.ledger.memory.leases, "DEADLINE_DIVISOR", 1)


def _with_delay(real: Callable[..., Any], delay: timedelta) -> Callable[..., Any]:
    def decide(*given: Any, **more: Any) -> Any:
        decided = real(*given, **more)
        return decided if isinstance(decided, Ended) else replace(decided, delay=delay)

    return decide


@bug("lost although the clocks disagree")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.attempt.rechecking, "_clocks_apart", lambda _deps: None)


@bug("lost at the first 404")
def _(stack: ExitStack) -> None:
    real = archiver.core.attempt.decisions.decide

    def decide(error: Exception, *given: Any, **more: Any) -> Any:
        if isinstance(error, SourceGone | HmsNotFound):
            return Ended(AssetState.LOST, "gone")
        return real(error, *given, **more)

    _instead(stack, archiver.core.attempt.archiver, "decide", decide)


# -- the account -----------------------------------------------------------------------------------------------
@bug("lost although a manifest proves it")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.attempt.archiver, "unless_verified", lambda _deps, _row, decided: decided)
    _instead(
        stack, archiver.core.attempt.archiver, "unless_stored", lambda _deps, _row, _error, decided: decided
    )


@bug("a sweep opens what is archived again")
def _(stack: ExitStack) -> None:
    real = MemoryLedger.discover

    def discover(self: Any, seen: Any) -> int:
        new = real(self, seen)
        for one in seen:
            asset = self._assets[one.asset_id]
            if asset.row.state is AssetState.ARCHIVED:
                self._reopen(asset)
        return new

    _instead(stack, MemoryLedger, "discover", discover)


@bug("an asset that was entered again is not counted")
def _(stack: ExitStack) -> None:
    real = MemoryLedger.settle

    def settle(self: Any, lease: Any, seen: Any, settlement: Any) -> Any:
        unknown = lease.asset_id not in self._assets
        row = real(self, lease, seen, settlement)
        self._seen -= unknown
        return row

    _instead(stack, MemoryLedger, "settle", settle)


@bug("a reconcile reopens nothing")
def _(stack: ExitStack) -> None:
    _instead(stack, Reconciler, "_close", lambda *_: (0, 0))


@bug("a ledger that was lost forgets the ends")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.records.end_records, "write", lambda *_, **__: None)


@bug("the scrub leaves out every second copy")
def _(stack: ExitStack) -> None:
    real = Scrubber.__init__

    def init(self: Any, **given: Any) -> None:
        real(self, **given)
        self._destinations = self._destinations[:-1]

    _instead(stack, Scrubber, "__init__", init)


@bug("damage that a scrub finds is only told")
def _(stack: ExitStack) -> None:
    _instead(stack, CopyChecker, "_report", lambda *_, **__: None)


@bug("status ignores a late sweep")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.health.Summary, "sweep_is_late", property(lambda _self: False))
    _instead(stack, archiver.core.health, "find_no_progress", lambda _summary: iter(()))


@bug("status ignores what is lost")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.health, "_ends", lambda _counts: iter(()))


@bug("nothing is told of what is at risk")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.upkeep.status, "most_urgent", lambda *_: iter(()))


@bug("rows without an id, and a wrong clock, are not told")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.upkeep.status, "_of_sweep", lambda _sweep: iter(()))


@bug("a destination that refuses is well between two attempts")
def _(stack: ExitStack) -> None:
    breaker = archiver.core.destinations.breaker
    _instead(stack, breaker, "not_closed", breaker.opened)


@bug("a destination that refuses the watch's probe is well")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.destinations.write_probe, "DestinationRefuses", HmsNotFound)


# -- what is erased --------------------------------------------------------------------------------------------
@bug("nobody looks for tombstones")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.records.tombstones, "check", lambda *_: None)
    _instead(stack, archiver.core.records.tombstones, "find", lambda *_: None)
    _instead(stack, archiver.core.records.tombstones, "read_at", lambda *_: None)
    _instead(stack, archiver.core.attempt.archiver, "erased_outcome", lambda *_: None)


@bug("an erasure is called done though objects are left")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.upkeep.erasing.Eraser, "_look", lambda *_: None)
    _instead(stack, archiver.core.upkeep.erasing.Eraser, "_remove", lambda *_: None)


@bug("an erasure during a lock is called done")
def _(stack: ExitStack) -> None:
    real = archiver.core.records.removal.all_left

    def all_left(*args: Any) -> Any:
        nothing = archiver.core.records.removal.Left()
        return [nothing if left.waits_until is not None else left for left in real(*args)]

    _instead(stack, archiver.core.records.removal, "all_left", all_left)


@bug("an erasure forgets older versions")
def _(stack: ExitStack) -> None:
    def versions(store: Any, prefix: str, _unknown: Any) -> Any:
        return (ObjectVersion(info.key, "", True) for info in store.list(prefix))

    _instead(stack, archiver.core.records.removal, "_versions", versions)


@bug("an erasure that waits for a lock is forgotten")
def _(stack: ExitStack) -> None:
    forever = datetime.max.replace(tzinfo=UTC)
    _instead(stack, archiver.core.upkeep.applied_tombstones, "locked_until", lambda _row: forever)


# -- what is drilled -------------------------------------------------------------------------------------------
@bug("a drill calls whole what it could not restore")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.restore.restorer.Restored, "ok", True)


@bug("a drill begins with the same copies each time")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.restore.drill, "read_drills", lambda *_: DrillRecord())


@bug("a drill fails what it could not reach")
def _(stack: ExitStack) -> None:
    _instead(
        stack,
        archiver.core.restore.restorer.Restored,
        "unreachable",
        property(lambda _: False, lambda *_: None),
    )


# -- what expires ----------------------------------------------------------------------------------------------
@bug("a term counts from the creation alone")
def _(stack: ExitStack) -> None:
    real = Terms.ends_at
    _instead(stack, Terms, "ends_at", lambda self, row, _: real(self, row, row.created_at or row.changed_at))


@bug("a day expires more than its share")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.upkeep.expiring._Share, "left", property(lambda _self: 100))


@bug("a reconcile opens again what has expired")
def _(stack: ExitStack) -> None:
    states = (*archiver.core.upkeep.reconcile._STORED_STATES, AssetState.EXPIRED)
    _instead(stack, archiver.core.upkeep.reconcile, "_STORED_STATES", states)
    real = MemoryLedger.reopen
    _instead(stack, MemoryLedger, "reopen", lambda *given, **more: real(*given, **{**more, "un_erase": True}))


# -- several destinations ---------------------------------------------------------------------------------------
@bug("a repair looks at sizes alone")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.replication.repairer, "is_doubtful", lambda *_: False)


@bug("a damaged copy counts for the quorum")
def _(stack: ExitStack) -> None:
    real = archiver.core.attempt.rechecking.unless_at_quorum

    def unless_at_quorum(deps: Any, row: Any, decided: Any) -> Any:
        settled: Any = real(deps, row, decided)
        is_loss = isinstance(decided, Ended) and decided.state is AssetState.LOST
        if (
            settled is not decided
            or deps.rules.quorum is None
            or not (isinstance(decided, WillRetry) or is_loss)
        ):
            return settled
        found = archiver.core.attempt.looking.look(deps.destinations, row.asset_id, row.created_at)
        damaged = [manifest for manifest in found.present.values() if manifest.trusted]
        if len(damaged) < deps.rules.quorum:
            return settled
        return AlreadyArchived(damaged[0].total_size, len(damaged[0].objects), damaged[0].warnings)

    _instead(stack, archiver.core.attempt.archiver, "unless_at_quorum", unless_at_quorum)


@bug("at the quorum every copy is called whole")
def _(stack: ExitStack) -> None:
    real = archiver.core.attempt.rechecking.unless_at_quorum

    def unless_at_quorum(deps: Any, row: Any, decided: Any) -> Any:
        settled: Any = real(deps, row, decided)
        return settled if settled is decided else replace(settled, copies=None)

    _instead(stack, archiver.core.attempt.archiver, "unless_at_quorum", unless_at_quorum)


@bug("status is healthy below all destinations")
def _(stack: ExitStack) -> None:
    _instead(stack, archiver.core.health, "_copies", lambda _summary: iter(()))


@bug("nothing is replicated by itself")
def _(stack: ExitStack) -> None:
    _instead(stack, Replicator, "_is_anything_due", lambda _self: False)
    _instead(stack, Replicator, "replicate", lambda *_: None)


@bug("a damaged copy is replicated")
def _(stack: ExitStack) -> None:
    """Its bytes pass for right, and the manifest says what is there."""
    _instead(stack, ObjectCopier, "copy", _copy_as_it_is)


def _copy_as_it_is(self: Any) -> None:
    objects = []
    for item in self._listed.objects:
        data = self._source.read(self._listed.key_of(item))
        crc = crc32c(data)
        self._target.put(ObjectSpec(self._manifest.key_of(item), item.content_type, len(data)), data, crc)
        objects.append(replace(item, size=len(data), crc32c=f"{crc:08x}"))
    object.__setattr__(self._manifest, "objects", tuple(objects))


@bug("an asset that has ended is leased to two repairs at once")
def _(stack: ExitStack) -> None:
    _instead(stack, MemoryLedger, "_is_end_leased", lambda *_: False)


@bug("a repair replaces a newer manifest")
def _(stack: ExitStack) -> None:
    real = Repairer._copy

    def copy(self: Any, job: Any, source: Any, target: Any, before_read: Any) -> None:
        with ExitStack() as unfenced:
            _instead(unfenced, archiver.core.records.commit, "_stays", lambda *_: False)
            _instead(unfenced, Heartbeat, "confirm_if_possible", lambda _self: None)
            real(self, job, source, target, before_read)

    _instead(stack, Repairer, "_copy", copy)


# -- who is told -----------------------------------------------------------------------------------------------
@bug("what is told is told again at the next look")
def _(stack: ExitStack) -> None:
    _instead(stack, Alert, "is_news", lambda *_: True)


@bug("nobody is alerted of what is at risk")
def _(stack: ExitStack) -> None:
    real = archiver.core.health.alert_findings

    def alert_findings(summary: Any) -> Any:
        return tuple(each for each in real(summary) if each.id != "at_risk")

    _instead(stack, worker.alerts.alerter, "alert_findings", alert_findings)


@bug("what is at risk is alerted when it is past its deadline")
def _(stack: ExitStack) -> None:
    real = archiver.core.health.alert_findings

    def alert_findings(summary: Any) -> Any:
        late = tuple(row for row in summary.at_risk if row.expires_at < summary.at)
        return real(replace(summary, at_risk=late))

    _instead(stack, worker.alerts.alerter, "alert_findings", alert_findings)


@bug("what goes on is called resolved after some looks")
def _(stack: ExitStack) -> None:
    real = AlertBook._carry_on

    def carry_on(alert: Any, finding: Any, now: datetime) -> Any:
        return real(alert, None if now - alert.since > timedelta(hours=8) else finding, now)

    _instead(stack, AlertBook, "_carry_on", staticmethod(carry_on))


# -- the fleet goes on -----------------------------------------------------------------------------------------
@bug("an open circuit breaker never closes")
def _(stack: ExitStack) -> None:
    real = archiver.core.destinations.breaker.trip

    def trip(ledger: Any, name: str, reason: str, now: datetime) -> None:
        with ExitStack() as long:
            _instead(long, archiver.core.destinations.breaker, "OPEN_FOR", timedelta(days=300))
            real(ledger, name, reason, now)

    def parse(facts: Any, now: datetime) -> Any:
        return {
            key.removeprefix(
                archiver.core.destinations.breaker.PREFIX
            ): archiver.core.destinations.breaker.OpenBreaker("for ever", now + timedelta(minutes=5))
            for key in facts
        }

    _instead(stack, archiver.core.destinations.breaker, "trip", trip)
    _instead(stack, archiver.core.destinations.breaker, "parse", parse)


@bug("what a worker had in hand when it died is not sent again")
def _(stack: ExitStack) -> None:
    real = MemoryLedger.take_due

    def take_due(self: Any, *given: Any, **more: Any) -> Any:
        with patch.object(MemoryLedger, "_is_leased", lambda *_: True):
            return real(self, *given, **more)

    _instead(stack, MemoryLedger, "take_due", take_due)


@bug("an upload of another version is resumed")
def _(stack: ExitStack) -> None:
    async def saved(self: Any) -> Any:
        found = await self._tools.load(self.store.name, self.spec.key) if self.resumable else None
        return found if found and found.part_bytes == self.spec.part_bytes else None

    _instead(stack, PartsUpload, "saved", saved)
    _instead(stack, archiver.transfer.checks.Checks, "whole", lambda *_: None)
