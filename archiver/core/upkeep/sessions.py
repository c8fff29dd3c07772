"""Keep who was in the sessions of archived assets (`core.records.session_records`), a bounded number at a time.

Optional context: whatever 100ms answers, no asset fails for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from archiver.core.records import session_records
from archiver.core.records.session_records import new_record
from archiver.hms.base import Sessions
from archiver.hms.errors import HmsBadRequest, HmsError, HmsInvalidResponse, HmsNotFound
from archiver.hms.models import parse_time
from archiver.ledger.base import Ledger
from archiver.ledger.models import ATTEMPTS, AssetState, Row
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

FACT = "sessions_kept"
"""Up to which change of an asset its session was looked at. `begun`: sessions whose records are to be looked at
once more for what was erased meanwhile: a run may be killed just after it wrote one."""
MOST_SESSIONS = 1000
"""Looked up in one run, the oldest first: each costs two requests to the API, and some to each destination."""
LONGEST = timedelta(hours=13)
"""A session lasts 12 hours at most: an older one has ended, whatever it says."""
FEW_ASSETS = 10_000
MOST_FAILURES = 3
"""In a row, after which a run ends: the API or a destination is away."""
_STATES = (AssetState.ARCHIVED, AssetState.QUARANTINED)
_UNKNOWN = (HmsNotFound, HmsBadRequest, HmsInvalidResponse)
"""Answers about one session that will not be another one tomorrow."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Place = tuple[datetime, str]
"""Where a run got to: when an asset was archived, and its session."""


@dataclass(slots=True)
class _Found:
    place: _Place  # of its asset that changed first
    row: Row
    assets: list[str]


class SessionKeeper:
    """`clock`: the ledger's."""

    def __init__(
        self,
        *,
        api: Sessions,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        clock: Callable[[], datetime],
        wanted: bool,
    ) -> None:
        """`wanted`: False where personal data must not be kept."""
        self._api = api
        self._ledger = ledger
        self._destinations = list(destinations)
        self._clock = clock
        self._wanted = wanted
        self._rooms: dict[str, str | None] = {}

    def keep(self) -> int:
        """Write the records of sessions with assets that were archived since the last call; return how many sessions
        were looked at. What fails is tried again by the next call. Idempotent. Raises LedgerError."""
        if not self._wanted:
            return 0
        self._rooms = {}
        fact = self._ledger.recall(FACT) or {}
        ended = self._ended()
        if fact.get("ended") == ended:
            return 0
        found, is_all = self._new_sessions(_since(fact))
        begun = self._look_again(_begun(fact))
        self._ledger.remember(FACT, {**fact, "begun": sorted({*begun, *found}), "ended": None})
        until, waits = (
            _since(fact),
            False,
        )  # `waits`: a session before is not done, and the next run begins there
        looked = failures = 0
        for session_id, each in sorted(found.items(), key=lambda item: item[1].place):
            is_done = False
            try:
                is_done = self._keep(session_id, each)
                looked, failures = looked + 1, 0
            except (HmsError, StorageError) as error:
                log.info("session_not_kept", session_id=session_id, reason=str(error))
                failures += 1
                begun.append(session_id)
            is_all = is_all and is_done
            waits = waits or not is_done
            if not waits:
                until = each.place
            if failures == MOST_FAILURES:
                break
        at, session_id = until
        ended_then = ended if is_all and not begun else None
        self._ledger.remember(
            FACT, {"at": at.isoformat(), "session_id": session_id, "ended": ended_then, "begun": begun}
        )
        if looked:
            log.info("sessions_kept", sessions=looked)
        return looked

    def keep_at_once(self) -> int:
        """Do `keep` where that takes seconds, for each sweep: it reads every row. Raises LedgerError."""
        if self._wanted and self._ledger.counts().seen <= FEW_ASSETS:
            return self.keep()
        return 0

    def _look_again(self, session_ids: Sequence[str]) -> list[str]:
        """Forget what was erased while an earlier run wrote; return the sessions that could not be looked at."""
        left, failures = [], 0
        for session_id in session_ids:
            if failures == MOST_FAILURES:
                left.append(session_id)
                continue
            try:
                for store in self._destinations:
                    session_records.forget_erased(store, session_id)
                failures = 0
            except StorageError as error:
                log.info("session_not_looked_at", session_id=session_id, reason=str(error))
                left.append(session_id)
                failures += 1
        return left

    def _ended(self) -> int:
        """How many attempts ever ended with something stored."""
        totals = self._ledger.totals()
        return sum(totals.get(f"{ATTEMPTS}{state}", 0) for state in _STATES)

    def _new_sessions(self, since: _Place) -> tuple[dict[str, _Found], bool]:
        """Return the oldest MOST_SESSIONS, and whether these are all. Memory: twice as many."""
        found: dict[str, _Found] = {}
        is_all = True
        for row in self._ledger.rows(_STATES):
            if row.session_id is None:
                continue
            place = (row.changed_at, row.session_id)
            if place <= since:
                continue
            if (known := found.get(row.session_id)) is None:
                found[row.session_id] = _Found(place, row, [row.asset_id])
            else:
                known.assets.append(row.asset_id)
                known.place = min(known.place, place)
            if len(found) > 2 * MOST_SESSIONS:
                found, is_all = _oldest(found), False
        return (found, is_all) if len(found) <= MOST_SESSIONS else (_oldest(found), False)

    def _keep(self, session_id: str, found: _Found) -> bool:
        """Return whether it is done: False while the session goes on. Raises HmsError, StorageError."""
        now = self._clock()
        there = [session_records.read(store, session_id) for store in self._destinations]
        record = next((each for each in there if each is not None), None)
        if record is None:
            try:
                session = self._api.session(session_id)
            except _UNKNOWN as error:
                log.info("session_unknown", session_id=session_id, reason=str(error))
                return True
            if session.active and session.created_at is not None and now - session.created_at < LONGEST:
                return False
            room_id = session.room_id or found.row.room_id
            record = new_record(session, self._room_name(room_id), found.assets, now, room_id)
        assets = tuple(sorted({*record.assets, *found.assets}))
        record = replace(record, assets=assets)
        for store, before in zip(self._destinations, there, strict=True):
            if before is None or before.assets != assets:
                session_records.add(store, record)
        return True

    def _room_name(self, room_id: str | None) -> str | None:
        if room_id is None:
            return None
        if room_id not in self._rooms:
            try:
                self._rooms[room_id] = self._api.room_name(room_id)
            except HmsError as error:
                log.info("room_unknown", room_id=room_id, reason=str(error))
                self._rooms[room_id] = None
        return self._rooms[room_id]


def _since(fact: Mapping[str, object]) -> _Place:
    return parse_time(fact.get("at")) or _EPOCH, str(fact.get("session_id") or "")


def _begun(fact: Mapping[str, object]) -> list[str]:
    begun = fact.get("begun")
    return [str(each) for each in begun] if isinstance(begun, list) else []


def _oldest(found: dict[str, _Found]) -> dict[str, _Found]:
    return dict(sorted(found.items(), key=lambda item: item[1].place)[:MOST_SESSIONS])
