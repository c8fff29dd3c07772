"""Archive one asset: the whole algorithm, in order.

    take the lease         leasing.py      held by another worker: nothing is done; renewed until the attempt ends
    ask the API            judging.py      the asset may be failed, external, or not ready
    look at what is there  looking.py      destinations with a verified manifest are left out, as are open breakers
    doubt what was damaged known_damage.py what was found damaged counts only once every byte of it was read
    copy                   copying.py      every object to every destination; what is missing or odd is a doubt
    compare                changed_meanwhile.py  after a long copy of a tree: does the source still have the same?
    verify                 committable.py  committed now, or after more attempts that find the same doubts?
    commit                 saving.py       the manifest, last, and only with the lease confirmed
    decide                 decisions.py    the outcome of a failure; rechecking.py: is the asset stored all the same?
    settle                 settling.py     archived, quarantined (stored with doubts), or when to retry and why

Idempotent, also when it runs twice at once: keys are stable, a verified manifest is never replaced, nothing that a
manifest lists is overwritten by something else, and a worker that lost its lease replaces no manifest of a later one
(docs/decisions/0008-fencing.md).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from archiver.core import workspaces
from archiver.core.attempt.context import Attempt, Dependencies, EngineFactory, OpenContents, Rules
from archiver.core.attempt.decisions import MAX_CRASHES, decide, rare_delay
from archiver.core.attempt.erased import erased_outcome, unless_erased
from archiver.core.attempt.known_damage import KnownDamage, still_damaged
from archiver.core.attempt.late_additions import add_missing
from archiver.core.attempt.leasing import take_lease
from archiver.core.attempt.looking import look
from archiver.core.attempt.outcomes import (
    AlreadyArchived,
    Archived,
    Ended,
    Kept,
    NotOurs,
    Outcome,
    Settled,
    WillRetry,
    settlement,
)
from archiver.core.attempt.overwritten import mark_overwritten
from archiver.core.attempt.rechecking import unless_at_quorum, unless_stored, unless_verified
from archiver.core.attempt.refusing import trip_breakers
from archiver.core.attempt.resized import copy_if_resized
from archiver.core.attempt.saving import save
from archiver.core.attempt.settling import settle_outcome
from archiver.core.destinations import breaker
from archiver.core.errors import ArchiveError, AssetErased, DestinationsFailed, Outranked
from archiver.core.judging import as_known, judge
from archiver.core.machine import is_machine_fault
from archiver.hms.base import RecordingAssets
from archiver.hms.errors import HmsError
from archiver.hms.models import Asset, AssetStatus
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LeaseLost, LedgerError
from archiver.ledger.models import AssetState, CopyState, Seen
from archiver.transfer.errors import Stopped, TransferError
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)


class Archiver:
    def __init__(
        self,
        *,
        api: RecordingAssets,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        open_contents: OpenContents,
        engine: EngineFactory,
        rules: Rules,
        clock: Callable[[], datetime],
        stop_requested: Callable[[], bool] = lambda: False,
        time_is_up: type[Exception] = Stopped,
        pause: Callable[[float], None] = time.sleep,
        workspace: str | None = None,
        time_at: Callable[[StorageBackend], datetime | None] = lambda _store: None,
    ) -> None:
        """`clock`: the ledger's. `time_is_up`: what the caller of `archive` raises in the middle of it to end a long
        attempt. `pause`: waits so many seconds for a ledger that is unreachable. `workspace`: that
        of our credentials (`hms.workspace`), when it is known. `time_at`: a destination's own time, asked before an
        asset is called lost; None when it does not tell one."""
        self.deps = Dependencies(
            api, ledger, list(destinations), open_contents, engine, rules, clock, time_at
        )
        self._stop_requested = stop_requested
        self._time_is_up = time_is_up
        self._pause = pause
        self._workspace = workspace
        self._is_ours = False  # asked once, when it is

    def archive(self, asset_id: str, holder: str) -> Outcome:
        """Archive one asset and settle it in the ledger. `holder` names this worker, for people.

        Every failure of the source, a destination or the contents is an outcome. Raises HmsError when the
        ledger does not know the asset and the API cannot tell; LedgerError when the outcome could not be
        recorded (the lease then expires and the asset is due again); and whatever ends the process.
        """
        if self._is_foreign():
            log.error("ledger_of_another_workspace", asset_id=asset_id)
            return NotOurs("this worker's credentials are of another 100ms workspace than the ledger")
        attempt = take_lease(self.deps, asset_id, holder, self._stop_requested)
        if attempt is None:
            return NotOurs("settled already, unknown, or another worker has it")
        seen = as_known(attempt.row)
        event = log.bind(asset_id=asset_id, type=attempt.row.type, attempt=attempt.row.attempts)
        try:
            with attempt.heartbeat:
                try:
                    seen, outcome = self._attempt(attempt)
                except (LedgerError, Outranked):
                    raise
                except AssetErased as error:
                    return self._after_erasure(seen, error)
                except Exception as error:  # noqa: BLE001 - the boundary of one asset: the others must go on
                    outcome = self._after_failure(attempt, error, breaker.machine_of(holder))
                outcome = unless_at_quorum(self.deps, attempt.row, outcome)
                if isinstance(outcome, AlreadyArchived):
                    outcome = replace(outcome, copied_bytes=attempt.heartbeat.bytes_done)
                outcome = unless_erased(self.deps, asset_id, outcome)
            self._settle(attempt, seen, outcome)
        except (LeaseLost, Outranked) as error:
            event.warning("lease_lost", reason=str(error))
            return self._after_lost_lease(attempt, seen, error)
        except BaseException as error:
            if not isinstance(error, Exception) or is_machine_fault(error):
                with suppress(LedgerError):  # what ends the process goes first; the lease expires by itself
                    self._settle(attempt, seen, _at_once("interrupted", attempt))
            raise
        event.info("attempt_ended", outcome=type(outcome).__name__, **_fields(outcome))
        return outcome

    def _is_foreign(self) -> bool:
        """100ms would say of every asset of another workspace that it is gone."""
        if not self._is_ours:
            foreign = workspaces.is_of_another(self.deps.ledger, self._workspace)
            self._is_ours = foreign is False
            return foreign is True
        return False

    def _attempt(self, attempt: Attempt) -> tuple[Seen, Settled]:
        deps, row = self.deps, attempt.row
        known = as_known(row)
        if row.crashes >= MAX_CRASHES:
            why = f"{row.crashes} workers in a row died while they copied it, without progress"
            later = rare_delay(row, deps.clock(), deps.rules.retry)
            return known, WillRetry(why, later).with_stored(row)
        if waits := attempt.waits_for(breaker.EVERYTHING) or attempt.waits_for(breaker.API):
            return known, waits
        asset = deps.api.asset(row.asset_id)
        attempt.note_success(breaker.API)
        seen, ended = self._judge(attempt, asset)
        if ended is not None:
            return seen, ended

        if erased := erased_outcome(deps, asset.id):
            return seen, erased
        damage = KnownDamage(row, deps.destinations, attempt.heartbeat.check)
        found = look(deps.destinations, asset.id, asset.created_at, damage.look)
        attempt.copies.update(found.copies)
        if not found.missing and not found.silent and found.committed is not None:
            changed = copy_if_resized(attempt, asset, found.committed)
            if not isinstance(changed, tuple):
                return seen, changed
            manifest = add_missing(attempt, asset, found.committed)
            warnings = tuple(dict.fromkeys([*manifest.warnings, *changed]))
            return seen, AlreadyArchived(manifest.total_size, len(manifest.objects), warnings)
        left_out = {*attempt.own_breakers, *found.hidden}
        stores = [store for store in found.missing if store.name not in left_out]
        outcome = save(attempt, asset, stores, found) if stores else None
        if found.silent:
            raise DestinationsFailed(found.silent)
        for store in found.missing:
            if waits := attempt.waits_for(store.name):
                return seen, waits
        if found.hidden:
            return seen, still_damaged(row, found)
        assert outcome is not None
        return seen, outcome

    def _judge(self, attempt: Attempt, asset: Asset) -> tuple[Seen, Settled | None]:
        """The asset as the API describes it now, and the outcome that follows from that alone."""
        rules, row = self.deps.rules, attempt.row
        seen = judge(asset, rules.scope, self.deps.clock())
        if seen.verdict is AssetState.SOURCE_FAILED:  # it was there to be saved, and may still be
            log.error("asset_failed_later", asset_id=asset.id, type=asset.type)
            return replace(seen, verdict=AssetState.DISCOVERED, reason=None), None
        if seen.verdict is not AssetState.DISCOVERED:
            ended = Ended(seen.verdict, seen.reason or "")
            return seen, unless_stored(self.deps, row, None, ended) if row.stored_objects else ended
        if asset.status != AssetStatus.COMPLETED:
            why = f"100ms reports status {asset.status!r}, not 'completed'"
            return seen, WillRetry(why, rules.retry.backoff.cap).with_stored(row)
        return seen, None

    def _after_failure(self, attempt: Attempt, error: Exception, machine: str) -> Settled:
        """Decide the outcome of an attempt that ended in `error`, and mark what it may have overwritten."""
        deps, row = self.deps, attempt.row
        if isinstance(error, self._time_is_up) and not isinstance(error, Stopped):
            error = Stopped("the time limit of one attempt is over; the next one resumes")
        failure = trip_breakers(deps, row.asset_id, machine, error)
        known = error.failed if isinstance(error, DestinationsFailed) else {}
        others = {name: why for name, why in attempt.dropped.items() if name not in known}
        if others and not isinstance(error, Stopped):  # the source failed too
            trip_breakers(deps, row.asset_id, machine, DestinationsFailed(others))
        jitter = random.random()  # noqa: S311
        decided = decide(failure, row, deps.clock(), deps.rules.retry, jitter)
        log.warning(
            "attempt_failed",
            asset_id=row.asset_id,
            type=row.type,
            attempt=row.attempts,
            reason=decided.reason,
            exc_info=_unforeseen(failure),
        )
        silent = failure.failed if isinstance(failure, DestinationsFailed) else ()
        mark_overwritten(deps.destinations, attempt.written, attempt.heartbeat.lease.fence, silent=silent)
        return unless_verified(deps, row, unless_stored(deps, row, failure, decided))

    def _after_erasure(self, seen: Seen, error: AssetErased | LeaseLost | Outranked) -> Ended:
        """What this attempt has stored is to be removed, also when the erasure has ended before."""
        outcome = Ended(
            AssetState.ERASING, f"{error}, while it was copied; reconcile removes what was stored"
        )
        self.deps.ledger.remove(seen, settlement(outcome))
        log.warning("erased_while_copied", asset_id=seen.asset_id, reason=str(error))
        return outcome

    def _after_lost_lease(self, attempt: Attempt, seen: Seen, error: LeaseLost | Outranked) -> Outcome:
        if erased_outcome(
            self.deps, attempt.row.asset_id
        ):  # it may have stored something since, such as after a pause
            return self._after_erasure(seen, error)
        if isinstance(error, Outranked):  # the lease may be ours all the same: the ledger was flushed
            with suppress(LedgerError):
                self._settle(attempt, seen, _at_once(str(error), attempt))
        if mark_overwritten(self.deps.destinations, attempt.written, attempt.heartbeat.lease.fence):
            with suppress(LedgerError):
                self.deps.ledger.reopen(attempt.row.asset_id)
        return NotOurs(str(error))

    def _copies(self, attempt: Attempt, outcome: Settled) -> Mapping[str, CopyState] | None:
        """What the destinations hold, for the ledger; None: as before, such as nothing of an asset that waits."""
        names = [store.name for store in self.deps.destinations]
        if isinstance(outcome, AlreadyArchived) and outcome.copies is not None:
            return outcome.copies
        if isinstance(outcome, Archived | AlreadyArchived | Kept):
            return dict.fromkeys(names, CopyState.WHOLE)
        if isinstance(outcome, WillRetry) and not attempt.row.copies:
            return None
        known = {**attempt.row.copies, **attempt.copies}
        return {name: known[name] for name in names if name in known}

    def _settle(self, attempt: Attempt, seen: Seen, outcome: Settled) -> None:
        settle_outcome(
            self.deps,
            attempt.heartbeat,
            seen,
            outcome,
            copies=self._copies(attempt, outcome),
            pause=self._pause,
            give_up=self._stop_requested,
        )


def _at_once(reason: str, attempt: Attempt) -> WillRetry:
    return WillRetry(reason, timedelta(0), costs_attempt=False).with_stored(attempt.row)


def _unforeseen(error: Exception) -> Exception | None:
    """`error` if its traceback is worth logging: one that is not of our own trees, nor a lack of memory or the like,
    which a traceback would only make worse."""
    ours = isinstance(error, (ArchiveError, TransferError, HmsError, StorageError, LedgerError))
    return None if ours or is_machine_fault(error) else error


def _fields(outcome: Outcome) -> dict[str, object]:
    return {name: getattr(outcome, name) for name in outcome.__slots__ if name not in ("warnings", "copies")}
