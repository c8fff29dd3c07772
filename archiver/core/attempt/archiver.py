"""archive(asset_id): the whole algorithm.

    take the lease                  else somebody else has it, and nothing is done; renewed until the attempt ends
    ask the API for the asset       it may be failed, external, or not ready
    leave out destinations          that hold a right manifest already, or are on hold
    open the contents               the bytes say what they are
    copy every object               to every destination, checked on the way; what is missing or odd is a doubt
    write the manifest              last, and only with the lease confirmed: this is the commit. With doubts only when
                                    several attempts found the same, and then it says so (core.attempt.doubts)
    settle                          archived, quarantined (stored with doubts), or when to try again and why

Running it twice, at once or again, ends in the same bucket: keys are stable, a manifest that is right is never
replaced, nothing that a manifest lists is overwritten by something else, and a worker that lost its lease replaces no
manifest of a later one (docs/decisions/0008-fencing.md).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from archiver.core.attempt import completing, doubts
from archiver.core.attempt.copying import Copied, Copier, EngineFactory
from archiver.core.attempt.decisions import MAX_CRASHES, RetryRules, decide, describe, rare_delay
from archiver.core.attempt.doubts import KeepingRules
from archiver.core.attempt.folders import Folder, choose_folder, next_folder
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.looking import Found, look, manifests_at, what_is_left
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
from archiver.core.attempt.overwritten import Written, mark_overwritten
from archiver.core.attempt.resized import Change, compare, has_other_size
from archiver.core.attempt.settling import settle
from archiver.core.attempt.upload_journal import LedgerUploadJournal
from archiver.core.clocks import clocks_agree
from archiver.core.contents.base import Contents
from archiver.core.deadlines import is_over
from archiver.core.destinations import breaker
from archiver.core.destinations.breaker import OPEN_FOR
from archiver.core.destinations.probing import refuses_everything
from archiver.core.errors import (
    ArchiveError,
    DestinationsFailed,
    DestinationUnusable,
    Doubtful,
    IncompleteContents,
    Outranked,
    RefusedAlone,
    WouldOverwrite,
)
from archiver.core.judging import Scope, as_known, judge
from archiver.core.machine import is_machine_fault
from archiver.core.records import end_records, keys
from archiver.core.records.commit import (
    commit,
    committed,
    extend,
    kept,
    kept_after_all,
    look_again_at,
    says_the_same,
)
from archiver.core.records.manifest import NO_FENCE, Manifest, new_manifest
from archiver.hms.base import RecordingAssets, TellsTime
from archiver.hms.errors import HmsError, HmsNotFound, HmsUnauthorized, HmsUnavailable
from archiver.hms.models import Asset, AssetStatus
from archiver.http import cancellation
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LeaseLost, LedgerError, LedgerUnavailable
from archiver.ledger.models import AssetState, Lease, Row, Seen
from archiver.transfer.errors import (
    SourceForbidden,
    SourceUnavailable,
    SourceUntrusted,
    Stopped,
    TransferError,
    UnexpectedContent,
)
from storage_backends.base import StorageBackend
from storage_backends.errors import DestinationRefuses, StorageError

log = structlog.get_logger(__name__)

OpenContents = Callable[[Asset], Contents]
MOST_FOLDERS = 5
"""That one attempt tries, when what is in them must stay."""
CLOCKS_DISAGREE = (
    "the clocks of the ledger and of the API disagree, or the API does not tell the time: not called lost"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings the algorithm needs."""

    scope: Scope
    retry: RetryRules
    key_template: str
    lease: timedelta
    lease_renew: timedelta
    archiver_version: str
    near_deadline: timedelta = timedelta(days=3)  # from when on what may still change is kept as it is

    @property
    def keeping(self) -> KeepingRules:
        return KeepingRules(self.retry.mismatch_attempts, self.near_deadline)


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that may go on. `has_work`: whether an earlier one recorded what it stored. `on_hold`: by name, what
    was to be left alone here when it began; `refused`: the same of every machine. `written`: what this attempt may have
    written so far."""

    lease: Lease
    row: Row
    has_work: bool
    on_hold: Mapping[str, breaker.OpenBreaker]
    refused: Mapping[str, breaker.OpenBreaker] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)


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
    ) -> None:
        """`time_is_up`: what whoever calls `archive` raises in the middle of it to end a long attempt. `pause`: waits
        so many seconds for a ledger that is away."""
        self._api = api
        self._ledger = ledger
        self._destinations = list(destinations)
        self._open_contents = open_contents
        self._engine = engine
        self._rules = rules
        self._clock = clock
        self._stop_requested = stop_requested
        self._time_is_up = time_is_up
        self._pause = pause

    def archive(self, asset_id: str, holder: str) -> Outcome:
        """Archive one asset and settle it in the ledger. `holder` names this worker, for people.

        Every failure of the source, a destination or the contents is an outcome. Raises HmsError when the
        ledger does not know the asset and the API cannot tell; LedgerError when the outcome could not be
        recorded (the lease then ends by itself and the asset is due again); and whatever ends the process.
        """
        begun = self._begin(asset_id, holder)
        if begun is None:
            return NotOurs("settled already, unknown, or another worker has it")
        row = begun.row
        seen = as_known(row)
        heartbeat = self._heartbeat(begun.lease, row)
        event = log.bind(asset_id=asset_id, type=row.type, attempt=row.attempts)
        try:
            with heartbeat:
                try:
                    seen, outcome = self._attempt(begun, heartbeat)
                except (LedgerError, Outranked):
                    raise
                except Exception as error:  # noqa: BLE001 - the boundary of one asset: the others must go on
                    failure = self._hold_what_refuses(self._in_our_words(error), asset_id, holder)
                    jitter = random.random()  # noqa: S311
                    decided = decide(failure, row, self._clock(), self._rules.retry, jitter)
                    event.warning("attempt_failed", reason=decided.reason, exc_info=_unforeseen(failure))
                    silent = failure.failed if isinstance(failure, DestinationsFailed) else ()
                    mark_overwritten(self._destinations, begun.written, heartbeat.lease.fence, silent=silent)
                    outcome = self._unless_saved(row, self._unless_stored(row, failure, decided))
            self._settle(heartbeat.lease, seen, outcome)
        except (LeaseLost, Outranked) as error:
            event.warning("lease_lost", reason=str(error))
            if isinstance(error, Outranked):  # the lease may be ours all the same: the ledger was flushed
                retry = _with_stored(WillRetry(str(error), timedelta(0), costs_attempt=False), row)
                with suppress(LedgerError):
                    self._settle(heartbeat.lease, seen, retry)
            if mark_overwritten(self._destinations, begun.written, heartbeat.lease.fence):
                with suppress(LedgerError):
                    self._ledger.reopen(asset_id)
            return NotOurs(str(error))
        except BaseException as error:
            if not isinstance(error, Exception) or is_machine_fault(error):
                interrupted = _with_stored(WillRetry("interrupted", timedelta(0), costs_attempt=False), row)
                with suppress(LedgerError):  # what ends the process goes first; the lease ends by itself
                    self._settle(heartbeat.lease, seen, interrupted)
            raise
        event.info("attempt_ended", outcome=type(outcome).__name__, **_fields(outcome))
        return outcome

    def _heartbeat(self, lease: Lease, row: Row) -> Heartbeat:
        """From the lease on: a destination alone may take longer to list than a lease lasts."""
        return Heartbeat(
            self._ledger,
            lease,
            self._rules.lease,
            renew_every=self._rules.lease_renew,
            asset_type=row.type,
            bytes_total=row.size_bytes,
            stop_requested=self._stop_requested,
        )

    def _attempt(self, begun: Begun, heartbeat: Heartbeat) -> tuple[Seen, Settled]:
        row = begun.row
        if row.crashes >= MAX_CRASHES:
            later = rare_delay(row, self._clock(), self._rules.retry)
            why = f"{row.crashes} workers died with it in hand and brought it no further"
            return as_known(row), _with_stored(WillRetry(why, later), row)
        if hold := begun.on_hold.get(breaker.API):
            return as_known(row), _with_stored(self._after(hold, breaker.API), row)
        asset = self._api.asset(row.asset_id)
        breaker.note_success(self._ledger, begun.refused, breaker.API)
        seen = judge(asset, self._rules.scope, self._clock())
        if seen.verdict is AssetState.SOURCE_FAILED:  # it was there to be saved, and may still be
            log.error("asset_failed_later", asset_id=asset.id, type=asset.type)
            seen = replace(seen, verdict=AssetState.DISCOVERED, reason=None)
        elif seen.verdict is not AssetState.DISCOVERED:
            ended = Ended(seen.verdict, seen.reason or "")
            return seen, self._unless_stored(row, None, ended) if row.stored_objects else ended
        elif asset.status != AssetStatus.COMPLETED:
            later = self._rules.retry.backoff.cap
            why = f"100ms reports status {asset.status!r}, not 'completed'"
            return seen, _with_stored(WillRetry(why, later), row)

        found = look(self._destinations, asset.id, asset.created_at)
        if not found.missing and not found.silent and found.right is not None:
            changed = self._look_at_change(asset, found.right, begun, heartbeat)
            if not isinstance(changed, tuple):
                return seen, changed
            manifest = self._completed(asset, found.right, begun, heartbeat)
            warnings = tuple(dict.fromkeys([*manifest.warnings, *changed]))
            return seen, AlreadyArchived(manifest.total_size, len(manifest.objects), warnings)
        stores = [store for store in found.missing if store.name not in begun.on_hold]
        archived = self._copy(asset, begun, heartbeat, stores, found) if stores else None
        if found.silent:
            raise DestinationsFailed(found.silent)
        for store in found.missing:
            if hold := begun.on_hold.get(store.name):
                return seen, _with_stored(self._after(hold, store.name), row)
        assert archived is not None
        return seen, archived

    def _look_at_change(
        self, asset: Asset, manifest: Manifest, begun: Begun, heartbeat: Heartbeat
    ) -> Archived | WillRetry | tuple[str, ...]:
        """Where the API says another size than when the asset was archived: copy it again if its source has something
        else now, and no less of it. Otherwise the warnings. Raises Doubtful while the source cannot be asked, and as
        `_copy`."""
        if not has_other_size(asset, manifest):
            return ()
        size = f"100ms changed its size from {manifest.asset.get('size')} to {asset.size_bytes} after it was archived"
        try:
            change = compare(manifest, self._open_contents(asset))
            log.warning("asset_resized", asset_id=asset.id, size=asset.size_bytes, change=change.name.lower())
            if change is Change.NEW:
                for store in self._destinations:
                    if hold := begun.on_hold.get(store.name):
                        return _with_stored(self._after(hold, store.name), begun.row)
                found = Found(missing=self._destinations, present=manifests_at(asset, self._destinations))
                outcome = self._copy(asset, begun, heartbeat, self._destinations, found)
                if isinstance(outcome, Archived):
                    return outcome  # what has doubts never replaces what is archived
        except (SourceUnavailable, HmsUnavailable) as error:
            if is_over(begun.row, self._clock()):
                raise
            raise Doubtful(
                f"{size}; {describe(error)}", None, busy=True, retry_after=error.retry_after
            ) from error
        return () if change is Change.NONE else (f"{size}, and {change.value}",)

    def _completed(self, asset: Asset, manifest: Manifest, begun: Begun, heartbeat: Heartbeat) -> Manifest:
        """`manifest`, with what was busy when it was written, if that can be had by now."""
        if not completing.lacks(manifest):
            return manifest
        present = manifests_at(asset, self._destinations)
        one = completing.in_one_place(present)
        if one is None or len(present) < len(self._destinations):
            return manifest
        key = keys.manifest_key(asset.id, asset.created_at)
        journal = LedgerUploadJournal(self._ledger, heartbeat.lease)
        with cancellation.watched(heartbeat.check), self._engine(journal, heartbeat) as engine:

            def copy(contents: Contents, listed: Manifest) -> Copied:
                copier = Copier(
                    self._ledger,
                    heartbeat.lease,
                    engine,
                    heartbeat,
                    version=f"missing:{listed.version}",
                    exact=False,
                    folder=listed.folder,
                    stores=self._destinations,
                    manifests=present,
                )
                begun.written.append(Written(key, listed.folder, copier.taken, present))
                return copier.copy(contents.items())

            added = completing.complete(one, self._open_contents(asset), copy)
        if added is None:
            return manifest
        for store in self._destinations:
            _confirm(heartbeat)
            there = present[store.name]
            if not extend(store, key, there, added.to(there, heartbeat.lease.fence)):
                return manifest
        return added.to(manifest, heartbeat.lease.fence)

    def _after(self, hold: breaker.OpenBreaker, name: str) -> WillRetry:
        left = min(hold.until - self._clock(), OPEN_FOR)
        return WillRetry(f"the circuit breaker of {name} is open: {hold.reason}", left, costs_attempt=False)

    def _copy(
        self,
        asset: Asset,
        begun: Begun,
        heartbeat: Heartbeat,
        stores: Sequence[StorageBackend],
        found: Found,
    ) -> Archived | Kept:
        """Copy to `stores` and commit at each that took everything. Raises DestinationsFailed when one did
        not, with those that were silent before; Doubtful when it is not to be committed yet; SourceError,
        ContentsError, HmsError, LeaseLost, Outranked, Stopped."""
        started = self._clock()
        present = {store.name: found.present[store.name] for store in stores if store.name in found.present}
        highest = max((manifest.rank for manifest in present.values()), default=NO_FENCE)
        if highest >= heartbeat.lease.fence:
            heartbeat.outrank(highest)
        folder = choose_folder(keys.asset_folder(asset, self._rules.key_template), present)
        tried: list[Folder] = []
        while True:
            try:
                contents, copied = self._copy_into(folder, asset, begun, heartbeat, stores)
                break
            except WouldOverwrite as error:
                tried.append(folder)
                if len(tried) > MOST_FOLDERS:
                    raise
                folder = next_folder(folder, present, tried)
                log.warning("new_folder", asset_id=asset.id, folder=folder.path, reason=str(error))
        fence = heartbeat.lease.fence
        manifest = self._judged(asset, begun.row, folder, contents, copied, present, fence)
        failed = {**found.silent, **copied.failed}
        for store in stores:
            if store.name not in failed:
                _confirm(heartbeat)
                try:
                    key = keys.manifest_key(asset.id, asset.created_at)
                    commit(store, key, manifest, present.get(store.name))
                    breaker.note_success(self._ledger, begun.refused, store.name)
                except StorageError as error:
                    failed[store.name] = error
        if failed:
            raise DestinationsFailed(failed)
        seconds = (self._clock() - started).total_seconds()
        if manifest.doubts:
            why = doubts.reason_kept(manifest)
            return Kept(why, manifest.total_size, len(manifest.objects), seconds)
        return Archived(manifest.total_size, len(manifest.objects), seconds, manifest.warnings)

    def _copy_into(
        self,
        folder: Folder,
        asset: Asset,
        begun: Begun,
        heartbeat: Heartbeat,
        stores: Sequence[StorageBackend],
    ) -> tuple[Contents, Copied]:
        lease, row = heartbeat.lease, begun.row
        keeping = doubts.keeps_now(row, self._rules.keeping)
        journal = LedgerUploadJournal(self._ledger, lease)
        with cancellation.watched(heartbeat.check), self._engine(journal, heartbeat) as engine:
            contents = self._open_contents(asset)
            same = contents.version_is_exact and doubts.same_bytes_again(row, contents.version)
            if same and not keeping:  # not to be read again just to find the same
                raise Doubtful(row.reason or "it has doubts", row.fingerprint)
            copier = Copier(
                self._ledger,
                lease,
                engine,
                heartbeat,
                version=folder.version_in_ledger(contents.version),
                exact=contents.version_is_exact,
                folder=folder.path,
                stores=stores,
                manifests=folder.manifests,
                keeping=keeping,
                has_work=begun.has_work,
            )
            key = keys.manifest_key(asset.id, asset.created_at)
            begun.written.append(Written(key, folder.path, copier.taken, folder.manifests))
            return contents, copier.copy(contents.items())

    def _judged(
        self,
        asset: Asset,
        row: Row,
        folder: Folder,
        contents: Contents,
        copied: Copied,
        present: Mapping[str, Manifest],
        fence: int,
    ) -> Manifest:
        """The manifest of what was copied, if it is to be committed now. Raises Doubtful, SourceError,
        IncompleteContents."""
        rules, now = self._rules.keeping, self._clock()
        found = list(dict.fromkeys([*contents.notes.doubts, *copied.doubts]))
        if not copied.has_media:
            if copied.worst is not None and not isinstance(copied.worst, UnexpectedContent):
                raise copied.worst
            if copied.worst is None:
                raise IncompleteContents(doubts.in_words(found) or "the asset has no media")
        name = doubts.fingerprint(contents.version, found, copied.objects, exact=contents.version_is_exact)
        name = doubts.counted_as(row, name)
        manifest = new_manifest(
            asset,
            folder=folder.path,
            form=contents.form,
            # of a tree, all its playlists: known only now, when it was walked
            version=str(contents.notes.facts.get("playlists_sha256") or contents.version),
            objects=copied.objects,
            warnings=(*contents.notes.warnings, *copied.warnings),
            facts=contents.notes.facts,
            now=now,
            archiver_version=self._rules.archiver_version,
            fence=fence,
            doubts=tuple(str(doubt) for doubt in found),
            missing=tuple(doubt.path for doubt in found if doubt.missing and doubt.path),
            fingerprint=name,
        )
        known = any(each.fingerprint == name or says_the_same(each, manifest) for each in present.values())
        if found and not known and not doubts.may_keep(row, now, rules, found, name):
            busy = copied.worst if isinstance(copied.worst, SourceUnavailable) else None
            raise Doubtful(
                doubts.in_words(found),
                None if doubts.is_near(row, now, rules) or any(doubt.unready for doubt in found) else name,
                busy=busy is not None,
                retry_after=busy.retry_after if busy else None,
            )
        return manifest

    def _begin(self, asset_id: str, holder: str) -> Begun | None:
        """None when the asset is not to be archived by us now."""
        found = self._ledger.begin(asset_id, holder, self._rules.lease, breaker.PREFIX)
        if found.lease is None and found.row is None:
            # a message outlived the ledger, or a person named an asset that no sweep has seen
            try:
                seen = judge(self._api.asset(asset_id), self._rules.scope, self._clock())
            except HmsNotFound:
                return None
            self._ledger.discover([seen])
            found = self._ledger.begin(asset_id, holder, self._rules.lease, breaker.PREFIX)
        if found.lease is None or found.row is None:
            return None
        refused = breaker.parse(found.facts, self._clock())
        on_hold = breaker.opened_on(refused, breaker.machine_of(holder))
        return Begun(found.lease, found.row, found.has_work, on_hold, refused)

    def _in_our_words(self, error: Exception) -> Exception:
        """The end of an attempt's time says nothing of the asset. A 401 or 403 for one asset is no reason to leave the
        whole API alone: where its list still answers, it is this asset that cannot be had."""
        if isinstance(error, Stopped):
            return error
        if isinstance(error, self._time_is_up):
            return Stopped(
                "the time that one attempt may take is over; the next one goes on with what is stored"
            )
        if not isinstance(error, HmsUnauthorized):
            return error
        try:
            next(iter(self._api.pages()), None)
        except HmsError:
            return error
        return SourceForbidden(f"the API answers, but not for this asset: {error}")

    def _unless_stored(
        self, row: Row, error: Exception | None, decided: WillRetry | Ended
    ) -> AlreadyArchived | Kept | WillRetry | Ended:
        """What every destination holds stays what it was when a new look at the source fails: archived, or quarantined;
        the latter waits when a look finds something new. It is never at risk, nor lost."""
        if row.stored_objects == 0 and not isinstance(decided, Ended):
            return decided
        key = keys.manifest_key(row.asset_id, row.created_at)
        is_lost = isinstance(decided, Ended) and decided.state is AssetState.LOST
        proof = (
            kept_after_all if is_lost else kept
        )  # what `archive --again` was asked for is better than nothing
        found: list[Manifest] = []
        for store in self._destinations:
            with suppress(StorageError):
                if manifest := committed(store, key) or proof(store, key):
                    found.append(manifest)
        if not found or len(found) < len(self._destinations):
            return decided
        one = next((manifest for manifest in found if not manifest.trusted), found[0])
        waits = isinstance(error, Doubtful | DestinationsFailed)
        if isinstance(decided, WillRetry) and (waits or not decided.costs_attempt):
            return replace(decided, stored_bytes=one.total_size, stored_objects=len(one.objects))
        if one.trusted:
            return AlreadyArchived(one.total_size, len(one.objects), one.warnings)
        why = doubts.reason_kept(one, f"looked at again: {decided.reason}")
        return Kept(why, one.total_size, len(one.objects))

    def _unless_saved(
        self, row: Row, decided: AlreadyArchived | Kept | WillRetry | Ended
    ) -> AlreadyArchived | Kept | WillRetry | Ended:
        """Nothing is called lost that a manifest proves, while a destination that may have one is silent, or while
        the clocks disagree about the deadline."""
        if not isinstance(decided, Ended) or decided.state is not AssetState.LOST:
            return decided
        found = look(self._destinations, row.asset_id, row.created_at, look_again_at)
        if unknown := {**found.silent, **found.unread}:
            why = str(DestinationsFailed(unknown))
            return self._not_lost_yet(row, f"{why}; {decided.reason}", self._rules.retry.backoff.base)
        manifest = found.right
        if (manifest is None or found.missing) and not self._clocks_agree():
            why = f"{CLOCKS_DISAGREE}; {decided.reason}"
            return self._not_lost_yet(row, why, self._rules.retry.backoff.cap)
        if manifest is None:
            return Ended(decided.state, decided.reason + what_is_left(row, found.missing))
        if not found.missing:
            return AlreadyArchived(manifest.total_size, len(manifest.objects), manifest.warnings)
        names = ", ".join(store.name for store in found.missing)
        return Ended(AssetState.LOST, f"whole at another destination, but not at {names}; {decided.reason}")

    def _not_lost_yet(self, row: Row, why: str, delay: timedelta) -> WillRetry:
        """What speaks for the loss counts on."""
        return WillRetry(
            why, delay, mismatch=True, fingerprint=row.fingerprint, gone=row.gone_since is not None
        )

    def _clocks_agree(self) -> bool:
        """The API was asked a moment ago."""
        api = self._api.api_time() if isinstance(self._api, TellsTime) else None
        return clocks_agree(self._clock(), api)

    def _hold_what_refuses(self, error: Exception, asset_id: str, holder: str) -> Exception:
        """Leave alone, for all assets, what refuses everything. The error, in which a destination that refused nothing
        but this asset's objects says so."""
        now, place = self._clock(), breaker.machine_of(holder)
        if isinstance(error, HmsUnauthorized):
            log.error("api_refuses", place=place, reason=str(error))
            breaker.trip_on(self._ledger, breaker.API, place, str(error), now)
        if isinstance(error, SourceUntrusted):
            log.error("source_untrusted", asset_id=asset_id, source=error.origin, reason=str(error))
            breaker.trip(self._ledger, error.origin, str(error), now)
        if not isinstance(error, DestinationsFailed):
            return error
        failed = dict(error.failed)
        for store in self._destinations:
            refusal = failed.get(store.name)
            if not isinstance(refusal, DestinationRefuses) or isinstance(refusal, DestinationUnusable):
                continue  # the latter is this machine's own matter, and known already (core.destinations.checked)
            everything = refuses_everything(store, refusal, self._ledger)
            if everything:
                log.error("destination_refuses", store=store.name, reason=str(refusal))
                breaker.trip_on(self._ledger, store.name, place, str(refusal), now)
            elif everything is False:
                log.error("asset_refused", asset_id=asset_id, store=store.name, reason=str(refusal))
                failed[store.name] = RefusedAlone(
                    f"{refusal}; other objects are taken, so only this asset waits"
                )
        return DestinationsFailed(failed)

    def _settle(self, lease: Lease, seen: Seen, outcome: Settled) -> None:
        how = settlement(outcome)
        if isinstance(
            outcome, Archived | AlreadyArchived | Kept
        ):  # the bucket has it: worth waiting for the ledger
            settle(self._ledger, lease, seen, how, pause=self._pause, give_up=self._stop_requested)
        else:
            self._ledger.settle(lease, seen, how)
        if how.state in end_records.RECORDED_STATES:
            log.error("asset_not_archived", asset_id=seen.asset_id, state=how.state, reason=how.reason)
            end_records.write(self._destinations, seen, how.state, how.reason or "", self._clock())


def _confirm(heartbeat: Heartbeat) -> None:
    """The last look at the lease before a commit. A ledger that is away does not stop it: the store's compare-and-swap
    and the token in the manifest decide then."""
    try:
        heartbeat.confirm()
    except LedgerUnavailable as error:
        log.warning("commit_without_ledger", asset_id=heartbeat.lease.asset_id, error=str(error))


def _with_stored(retry: WillRetry, row: Row) -> WillRetry:
    """What is kept of the asset with doubts is kept while it waits, too."""
    return replace(retry, stored_bytes=row.stored_bytes, stored_objects=row.stored_objects)


def _unforeseen(error: Exception) -> Exception | None:
    """The traceback is worth logging for errors that are not of our own trees, nor a lack of memory or the like, which
    it would only make worse."""
    ours = isinstance(error, (ArchiveError, TransferError, HmsError, StorageError, LedgerError))
    return None if ours or is_machine_fault(error) else error


def _fields(outcome: Outcome) -> dict[str, object]:
    return {name: getattr(outcome, name) for name in outcome.__slots__ if name != "warnings"}
