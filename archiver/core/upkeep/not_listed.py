"""Recordings that a webhook announced and the API does not list: they cannot be archived, so a person must ask 100ms.

Kept as one fact in the ledger, from the first look on that does not find them. `Announcements` looks again. What a
person acknowledged is kept in another, which versions before do not rewrite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from archiver.core.health_rules import Finding, finding
from archiver.core.locks import acquire
from archiver.hms.models import Asset, AssetType, parse_time
from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerUnavailable

log = structlog.get_logger(__name__)

FACT = "announced_not_listed"
ACKNOWLEDGED_FACT = "announced_not_listed_acknowledged"
GRACE = timedelta(hours=1)
"""A webhook may come before its asset is listed."""
MOST_KEPT = 200
MOST_ACKNOWLEDGED = 1000
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


def acknowledge(ledger: Facts, name: str, *, by: str, why: str, now: datetime) -> list[Announced]:
    """Record that a person has looked after what was announced of the session or asset `name`; return what that is, or
    nothing when it is not reported. What is announced of it later is reported again. Idempotent: the first stays.
    Raises LedgerError."""
    with acquire(ledger, _LOCK, _LOCK_TTL) as lock:
        kept = [each for each, _ in _kept(ledger.recall(FACT)) if name in (each.session_id, *each.asset_ids)]
        entries = _acknowledgements(ledger.recall(ACKNOWLEDGED_FACT))
        new = [each for each in kept if each not in entries]
        if new and lock is None:
            raise LedgerUnavailable("another process is changing what was announced: try again")
        decision = {"by": by, "why": why, "decided_at": now.isoformat()}
        entries = {**entries, **{each: {**_saved(each, now), **decision} for each in new}}
        if new:
            newest = list(entries.values())[-MOST_ACKNOWLEDGED:]
            ledger.remember(ACKNOWLEDGED_FACT, {"recordings": newest})
            log.warning("announcement_acknowledged", name=name, by=by, why=why)
        return kept


def _acknowledgements(fact: Mapping[str, object] | None) -> dict[Announced, dict[str, object]]:
    recordings = (fact or {}).get("recordings")
    return {
        announced: each
        for each in (recordings if isinstance(recordings, list) else ())
        for announced, _ in _kept({"recordings": [each]})
    }


def _remember(ledger: Facts, kept: Mapping[Announced, datetime]) -> None:
    if kept:
        ledger.remember(FACT, {"recordings": [_saved(each, at) for each, at in kept.items()]})
    else:
        ledger.forget(FACT)


def findings(
    fact: Mapping[str, object] | None, acknowledged: Mapping[str, object] | None, now: datetime
) -> Iterator[Finding]:
    seen = _acknowledgements(acknowledged)
    for announced in (announced for announced, _ in _kept(fact) if announced in seen):
        decision = seen[announced]
        yield finding(
            "acknowledged",
            f"Acknowledged by {decision.get('by')}: {_name(announced)} is announced and not listed "
            f"({decision.get('why')}).",
        )
    found = [announced for announced, at in _kept(fact) if now - at >= GRACE and announced not in seen]
    if not found:
        return
    number = "1 recording was" if len(found) == 1 else f"{len(found):,} recordings were"
    named = ", ".join(_name(each) for each in found[:NAMED]) + (", ..." if len(found) > NAMED else "")
    yield finding(
        "announced_not_listed",
        f"{number} announced by a webhook of 100ms and is not in its list, so cannot be archived: {named}. Ask 100ms; "
        f"if they have it no more: `archiver ack {found[0].session_id or found[0].asset_ids[0]} --why ...`."
        if len(found) == 1
        else f"{number} announced by webhooks of 100ms and are not in its list, so cannot be archived: {named}. "
        "Ask 100ms; what they have no more: `archiver ack SESSION_ID --why ...`.",
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
