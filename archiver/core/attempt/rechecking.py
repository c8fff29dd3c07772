"""Read the destinations again before an asset is settled as anything but stored."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

from archiver.core.attempt import doubts
from archiver.core.attempt.context import Dependencies
from archiver.core.attempt.known_damage import KnownDamage, still_damaged
from archiver.core.attempt.looking import look, what_is_left
from archiver.core.attempt.outcomes import AlreadyArchived, Ended, Kept, Settled, WillRetry
from archiver.core.clocks import clocks_agree
from archiver.core.errors import DestinationsFailed, Doubtful
from archiver.core.records import keys
from archiver.core.records.commit import committed, kept, kept_after_all, look_again_at
from archiver.core.records.manifest import Manifest
from archiver.hms.base import TellsTime
from archiver.ledger.models import AssetState, CopyState, Row
from storage_backends.errors import StorageError

CLOCKS_DISAGREE = "the clocks of the ledger and of the API disagree, or the API does not tell the time"

Decided = AlreadyArchived | Kept | WillRetry | Ended


def unless_stored(
    deps: Dependencies, row: Row, error: Exception | None, decided: WillRetry | Ended
) -> Decided:
    """`decided`, unless every destination holds the asset: it stays archived or quarantined although a new look at the
    source failed. A quarantined one waits when a look finds something new."""
    if row.stored_objects == 0 and not isinstance(decided, Ended):
        return decided
    key = keys.manifest_key(row.asset_id, row.created_at)
    is_lost = isinstance(decided, Ended) and decided.state is AssetState.LOST
    proof = kept_after_all if is_lost else kept  # a copy that `archive --again` marked is better than none
    damage = KnownDamage(row, deps.destinations)
    found: list[Manifest] = []
    for store in deps.destinations:
        with suppress(StorageError):
            manifest = committed(store, key) or proof(store, key)
            if manifest is not None and not damage.problems(store, manifest):
                found.append(manifest)
    if not found or len(found) < len(deps.destinations):
        return decided
    one = next((manifest for manifest in found if not manifest.trusted), found[0])
    waits = isinstance(error, Doubtful | DestinationsFailed)
    if isinstance(decided, WillRetry) and (waits or not decided.costs_attempt):
        return replace(decided, stored_bytes=one.total_size, stored_objects=len(one.objects))
    if one.trusted:
        return AlreadyArchived(one.total_size, len(one.objects), one.warnings)
    why = doubts.reason_kept(one, f"looked at again: {decided.reason}")
    return Kept(why, one.total_size, len(one.objects))


def unless_verified(deps: Dependencies, row: Row, decided: Decided) -> Decided:
    """`decided`, unless it is LOST and a manifest proves the asset whole, a destination that may have one is silent,
    the clocks disagree about the deadline, or a damaged copy is left that cannot be marked."""
    if not isinstance(decided, Ended) or decided.state is not AssetState.LOST:
        return decided
    damage = KnownDamage(row, deps.destinations)
    how = partial(damage.look, how=look_again_at)
    found = look(deps.destinations, row.asset_id, row.created_at, how)
    backoff = deps.rules.retry.backoff
    if unknown := {**found.silent, **found.unread}:
        return _not_lost_yet(row, f"{DestinationsFailed(unknown)}; {decided.reason}", backoff.base)
    manifest = found.committed
    if (manifest is None or found.missing) and (apart := _clocks_apart(deps)):
        return _not_lost_yet(row, f"{apart}: not called lost; {decided.reason}", backoff.cap)
    if found.hidden:
        return still_damaged(row, found)
    if manifest is None:
        return Ended(decided.state, decided.reason + what_is_left(row, found.missing))
    if not found.missing:
        return AlreadyArchived(manifest.total_size, len(manifest.objects), manifest.warnings)
    names = ", ".join(store.name for store in found.missing)
    return Ended(AssetState.LOST, f"whole at another destination, but not at {names}; {decided.reason}")


def unless_at_quorum(deps: Dependencies, row: Row, decided: Settled) -> Settled:
    """`decided`, unless it waits or is lost and so many destinations hold the asset whole as are asked for: archived,
    and the others are replicated from these (`upkeep.replicate`)."""
    if deps.rules.quorum is None or deps.rules.quorum >= len(deps.destinations):
        return decided
    is_lost = isinstance(decided, Ended) and decided.state is AssetState.LOST
    if not isinstance(decided, WillRetry) and not is_lost:
        return decided
    damage = KnownDamage(row, deps.destinations)
    found = look(deps.destinations, row.asset_id, row.created_at, damage.look)
    lacking = len(found.missing) + len(found.silent)
    if not lacking or found.committed is None or len(deps.destinations) - lacking < deps.rules.quorum:
        return decided
    manifest = found.committed
    known = {store.name: row.copies.get(store.name, CopyState.LACKING) for store in deps.destinations}
    copies = {**known, **found.copies}
    for name in (*(store.name for store in found.missing), *found.silent):
        if copies[name] is CopyState.WHOLE:  # with doubts, or as it was before: not what is archived
            copies[name] = CopyState.DAMAGED
    return AlreadyArchived(manifest.total_size, len(manifest.objects), manifest.warnings, copies)


def _not_lost_yet(row: Row, why: str, delay: timedelta) -> WillRetry:
    """Wait, and go on counting what speaks for the loss."""
    gone = row.gone_since is not None
    return WillRetry(why, delay, mismatch=True, fingerprint=row.fingerprint, gone=gone)


def _clocks_apart(deps: Dependencies) -> str | None:
    """Return which clock differs from the ledger's; None when those of the API and of every destination that tells the
    time agree with it. The API was asked a moment ago; a destination is sent a probe, so call it rarely."""
    now, api = deps.clock(), deps.api.api_time() if isinstance(deps.api, TellsTime) else None
    if not clocks_agree(now, api):
        return CLOCKS_DISAGREE
    for store in deps.destinations:
        at = deps.time_at(store)
        if at is not None and not clocks_agree(deps.clock(), at):
            return f"the clocks of the ledger and of {store.name} disagree"
    return None
