"""Recordings that a webhook announced and the API does not list: they cannot be archived, so a person must ask 100ms.

Kept as one fact in the ledger, from the first look on that does not find them. `Announcements` looks again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.core.health_rules import Finding, finding
from archiver.core.locks import acquire
from archiver.hms.models import Asset, AssetType, parse_time
from archiver.ledger.base import Facts

FACT = "announced_not_listed"
GRACE = timedelta(hours=1)
"""A webhook may come before its asset is listed."""
MOST_KEPT = 200
NAMED = 3
_LOCK = "announced_not_listed"
_LOCK_TTL = timedelta(seconds=30)

_VIDEOS = frozenset({AssetType.ROOM_COMPOSITE, AssetType.ROOM_COMPOSITE_LEGACY, AssetType.ROOM_VOD})
_TYPES: Mapping[str, frozenset[AssetType]] = {
    "beam.recording.success": _VIDEOS,
    "hls.recording.success": _VIDEOS,
    "recording.success": _VIDEOS,
    "stream.recording.success": frozenset({AssetType.STREAM}),
    "track.recording.success": frozenset({AssetType.TRACK}),
    "transcription.success": frozenset({AssetType.TRANSCRIPT, AssetType.SUMMARY}),
}


@dataclass(frozen=True, slots=True)
class Announced:
    """What an event announced: the outputs of a session, or an asset when there is no session. `event`: its type; empty
    when everything it names is known already. `asset_ids`: those it names."""

    session_id: str | None
    event: str = ""
    asset_ids: tuple[str, ...] = ()

    def is_among(self, listed: Sequence[Asset]) -> bool:
        """Whether the session's list shows it: every asset that is named, else one of the event's types."""
        if self.asset_ids:
            return set(self.asset_ids) <= {asset.id for asset in listed}
        types = _TYPES.get(self.event)
        return types is None or any(asset.type in types for asset in listed)


def note(ledger: Facts, announced: Announced, *, is_listed: bool, now: datetime) -> None:
    """Record what is not listed, or forget it once it is. Idempotent. Raises LedgerError."""
    before = dict(_kept(ledger.recall(FACT)))
    if is_listed and announced not in before:
        return
    with acquire(ledger, _LOCK, _LOCK_TTL) as lock:
        if lock is None:  # the next look notes it
            return
        kept = dict(_kept(ledger.recall(FACT)))
        if is_listed:
            kept.pop(announced, None)
        elif announced not in kept and len(kept) < MOST_KEPT:
            kept[announced] = now
        _remember(ledger, kept)


def all_noted(ledger: Facts, *, since: datetime) -> list[Announced]:
    """Return what was noted since then, and forget the rest: 100ms has deleted it. Raises LedgerError."""
    with acquire(ledger, _LOCK, _LOCK_TTL) as lock:
        kept = dict(_kept(ledger.recall(FACT)))
        young = {announced: at for announced, at in kept.items() if at >= since}
        if lock is not None and len(young) < len(kept):
            _remember(ledger, young)
        return list(young)


def _remember(ledger: Facts, kept: Mapping[Announced, datetime]) -> None:
    if kept:
        ledger.remember(FACT, {"recordings": [_saved(each, at) for each, at in kept.items()]})
    else:
        ledger.forget(FACT)


def findings(fact: Mapping[str, object] | None, now: datetime) -> Iterator[Finding]:
    found = [announced for announced, at in _kept(fact) if now - at >= GRACE]
    if not found:
        return
    number = "1 recording was" if len(found) == 1 else f"{len(found):,} recordings were"
    named = ", ".join(_name(each) for each in found[:NAMED]) + (", ..." if len(found) > NAMED else "")
    yield finding(
        "announced_not_listed",
        f"{number} announced by a webhook of 100ms and is not in its list, so cannot be archived: {named}. Ask 100ms."
        if len(found) == 1
        else f"{number} announced by webhooks of 100ms and are not in its list, so cannot be archived: {named}. "
        "Ask 100ms.",
        level=len(found),
    )


def _name(announced: Announced) -> str:
    where = f"session {announced.session_id}" if announced.session_id else ""
    return " ".join([where, *(f"asset {each}" for each in announced.asset_ids[:1])]).strip()


def _saved(announced: Announced, at: datetime) -> dict[str, object]:
    return {
        "session_id": announced.session_id,
        "event": announced.event,
        "asset_ids": list(announced.asset_ids),
        "at": at.isoformat(),
    }


def _kept(fact: Mapping[str, object] | None) -> Iterator[tuple[Announced, datetime]]:
    """Entries that this version does not understand are left out."""
    recordings = (fact or {}).get("recordings")
    for each in recordings if isinstance(recordings, list) else ():
        at = parse_time(each.get("at")) if isinstance(each, dict) else None
        if at is None:
            continue
        session_id, ids = each.get("session_id"), each.get("asset_ids")
        yield (
            Announced(
                session_id if isinstance(session_id, str) else None,
                str(each.get("event") or ""),
                tuple(str(one) for one in ids) if isinstance(ids, list) else (),
            ),
            at,
        )
