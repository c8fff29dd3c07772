"""Delete assets whose term is over, as `erasing` does, and leave a tombstone that says `expired`.

Whatever the settings say: a term that is shorter than the one that was accepted deletes nothing until a person accepts
it (`archiver expire --yes`), and no day deletes more than a hundredth of the archive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

import structlog

from archiver.core.health_rules import Finding, finding
from archiver.core.locks import Lock, acquire
from archiver.core.records import keys
from archiver.core.records.manifest import find_manifest
from archiver.core.upkeep.erasing import AT_ONCE, Eraser, Removal
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.upkeep.terms import Terms, latest_archived_at
from archiver.hms.models import parse_time
from archiver.ledger.base import Ledger
from archiver.ledger.models import AssetState, Row
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

FACT = "expiry"
LOCK_NAME = "expire"
LOCK_TTL = timedelta(minutes=10)
SHARE = 100
"""At most one in so many archived assets expires in a day (UTC), and at least one."""
SOON = timedelta(days=7)
"""What expires within is told in the daily digest."""
MOST_COUNTED = 100_000
KEPT_STATES = (AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.REJECTED)
"""States that a term ends. What is damaged waits for a person."""
_RETENTION = timedelta(days=31)
"""By how much a row's deadline is later than its creation, at most: rows are listed by deadline."""


@dataclass(frozen=True, slots=True)
class ExpiryResult:
    """`withheld`: terms that are shorter than what was accepted, in words; then nothing was deleted. `left`: due today,
    over the day's share. `unfinished`: something of them is left."""

    expired: int = 0
    unfinished: int = 0
    left: int = 0
    withheld: tuple[str, ...] = ()


class Expirer:
    """`clock`: the ledger's."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Sequence[StorageBackend],
        eraser: Eraser,
        terms: Terms,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._destinations = list(destinations)
        self._eraser = eraser
        self._terms = terms
        self._clock = clock

    def run(
        self, *, confirmed: bool = False, on_progress: OnProgress = ignore_progress
    ) -> ExpiryResult | None:
        """Delete what is due today. `confirmed`: a person accepts terms that are shorter. None when another run is
        under way. Idempotent. Raises LedgerError; a destination that fails leaves assets unfinished."""
        with acquire(self._ledger, LOCK_NAME, LOCK_TTL) as lock:
            return None if lock is None else self._run(lock, confirmed, on_progress)

    def due(self) -> Iterator[Row]:
        """Yield the assets whose term is over, the oldest first, whatever was accepted. Raises LedgerError. One whose
        manifest cannot be read is left out."""
        now = self._clock()
        for row in self._listed(now):
            ends_at = self._terms.ends_at(row, row.created_at or now)
            if ends_at is not None and ends_at <= now and self._is_over(row, now, self._terms):
                yield row

    def term_is_over(self, row: Row) -> bool:
        """Whether the asset's accepted term is over by what the ledger alone knows: what is missing of it then was
        deleted by a rule of the bucket. Raises LedgerError."""
        if self._terms.shortest_days is None or row.state not in KEPT_STATES:
            return False
        if any(self._terms.shorter_than(self._accepted())):
            return False
        ends_at = self._terms.ends_at(row, latest_archived_at(row))
        return ends_at is not None and ends_at <= self._clock()

    # -- inside --------------------------------------------------------------------------------------------
    def _run(self, lock: Lock, confirmed: bool, on_progress: OnProgress) -> ExpiryResult:
        now, fact = self._clock(), dict(self._ledger.recall(FACT) or {})
        counts = self._ledger.counts().states
        archive = sum(counts.get(state, 0) for state in KEPT_STATES)
        shorter = tuple(self._terms.shorter_than(Terms.from_fact(fact.get("terms"))))
        # a ledger that was swept and holds nothing archived is a new one, not a lost one
        is_new = archive == 0 and not fact and self._ledger.recall(SWEEP_FACT) is not None
        is_accepted = not shorter or confirmed or is_new
        fact |= {"at": now.isoformat(), "withheld": "" if is_accepted else "; ".join(shorter)}
        fact |= self._soon(now)
        if not is_accepted:
            self._ledger.remember(FACT, fact)
            log.warning("expiry_withheld", terms=shorter, advice="`archiver expire --yes` accepts them")
            return ExpiryResult(withheld=shorter)
        if shorter:
            log.warning("terms_accepted", terms=self._terms.as_fact())
        today = now.date().isoformat()
        if fact.get("day") != today:
            fact |= {"day": today, "archive": archive, "begun": 0}
        fact["terms"] = self._terms.as_fact()
        self._ledger.remember(FACT, fact)
        begun, share = _number(fact, "begun"), max(1, _number(fact, "archive") // SHARE)
        expired = unfinished = 0
        due = self.due()
        while begun < share and (batch := list(islice(due, min(AT_ONCE, share - begun)))):
            lock.extend()
            begun += len(batch)
            self._ledger.remember(FACT, {**fact, "begun": begun})  # first: killed, it must not begin anew
            for removal in self.expire(batch):
                expired, unfinished = expired + removal.is_done, unfinished + (not removal.is_done)
            on_progress("expiring", begun)
        result = ExpiryResult(expired, unfinished, self._ended_by(now) if begun >= share else 0)
        if result != ExpiryResult():
            self._ledger.remember(FACT, {**fact, "begun": begun, **self._soon(now)})
            log.info("expiry_ended", expired=expired, unfinished=unfinished, left=result.left)
        return result

    def expire(self, rows: Sequence[Row]) -> Iterator[Removal]:
        """Delete what is left of these, and call them EXPIRED. Idempotent. Raises LedgerError."""
        for days in dict.fromkeys(self._terms.days(row.type) for row in rows):
            ids = [row.asset_id for row in rows if self._terms.days(row.type) == days]
            yield from self._eraser.erase(ids, ticket=f"kept {days} days", state=AssetState.EXPIRED)

    def _soon(self, now: datetime) -> dict[str, object]:
        """Count what expires within SOON, by the ledger alone, and tell when the first does."""
        number, first = 0, None
        for ends_at in self._ends(now + SOON):
            number += 1
            first = min(first or ends_at, ends_at)
        return {"soon": number, "first": first.isoformat() if first else None}

    def _ended_by(self, moment: datetime) -> int:
        return sum(1 for _ in self._ends(moment))

    def _ends(self, until: datetime) -> Iterator[datetime]:
        """Yield when terms end, up to `until`, by the ledger alone: a manifest may say later. At most MOST_COUNTED."""
        for row in islice(self._listed(until), MOST_COUNTED):
            ends_at = self._terms.ends_at(row, row.created_at or until)
            if ends_at is not None and ends_at <= until:
                yield ends_at

    def _listed(self, until: datetime) -> Iterator[Row]:
        shortest = self._terms.shortest_days
        if shortest is None:
            return
        before = until - timedelta(days=shortest) + _RETENTION
        for state in KEPT_STATES:
            yield from self._ledger.rows([state], expiring_before=before)

    def _is_over(self, row: Row, now: datetime, terms: Terms) -> bool:
        """By the manifests, which date what they archived; the latest counts."""
        key, dated = keys.manifest_key(row.asset_id, row.created_at), []
        try:
            for store in self._destinations:
                found = find_manifest(store, key)
                if found is not None and found.manifest is None:
                    return False  # nobody knows what it says
                if found is not None and found.manifest is not None:
                    dated.append(found.manifest.archived_at)
        except StorageError as error:
            log.warning("manifest_not_readable", asset_id=row.asset_id, reason=str(error))
            return False
        ends_at = terms.ends_at(row, max(dated) if dated else latest_archived_at(row))
        return ends_at is not None and ends_at <= now

    def _accepted(self) -> Terms:
        return Terms.from_fact((self._ledger.recall(FACT) or {}).get("terms"))


def findings(fact: Mapping[str, object] | None) -> Iterator[Finding]:
    """What `status` says of the last run."""
    if not fact:
        return
    if withheld := fact.get("withheld"):
        yield finding(
            "expiry_unconfirmed",
            f"Nothing expires: ARCHIVER_KEEP_DAYS is shorter than what was accepted ({withheld}). `archiver expire` "
            "lists what it would delete, `archiver expire --yes` accepts it.",
        )
    number, first = _number(fact, "soon"), parse_time(fact.get("first"))
    if number and first is not None and not fact.get("withheld"):
        yield finding(
            "expiring_soon",
            f"{number:,} assets expire within {SOON.days} days, the first on {first:%Y-%m-%d}.",
        )


def _number(fact: Mapping[str, object], name: str) -> int:
    value = fact.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
