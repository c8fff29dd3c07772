"""Delete assets whose term is over, as `erasing` does, and leave a tombstone that says `expired`.

Whatever the settings say: a term that is shorter than the one that was accepted deletes nothing until a person accepts
it (`archiver expire --yes`), and no day deletes more than a hundredth of the archive. Both are recorded at the
destinations, so that a ledger that was lost or rolled back changes neither. Nothing is deleted while the clocks of the
ledger, 100ms and the destinations disagree, nor before the ledger was compared with the destinations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice

import structlog

from archiver.core.health_rules import Finding, finding
from archiver.core.locks import Lock, acquire
from archiver.core.records import expiry_records, keys
from archiver.core.records.expiry_records import ExpiryRecord
from archiver.core.records.manifest import find_manifest
from archiver.core.upkeep import clock_evidence
from archiver.core.upkeep.erasing import AT_ONCE, Eraser, Removal
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.reports import RECONCILE_FACT
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.core.upkeep.terms import DEFAULT, FOR_EVER, Terms, latest_archived_at
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
MOST_LEFT = 1000
"""Assets of which a rule of the buckets left objects: listed again by each reconcile."""
KEPT_STATES = (AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.REJECTED)
"""States that a term ends. What is damaged waits for a person."""
_RETENTION = timedelta(days=31)
"""By how much a row's deadline is later than its creation, at most: rows are listed by deadline."""


@dataclass(frozen=True, slots=True)
class ExpiryResult:
    """`withheld`: terms that are shorter than what was accepted, in words; `held`: why nothing may be deleted now. Then
    nothing was deleted. `left`: due today, over the day's share. `unfinished`: something of them is left."""

    expired: int = 0
    unfinished: int = 0
    left: int = 0
    withheld: tuple[str, ...] = ()
    held: str = ""


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
        now, ends_at = self._clock(), self._terms.ends_at(row, latest_archived_at(row))
        if ends_at is None or ends_at > now:
            return False
        return clock_evidence.problem_by_facts(self._ledger, now) is None

    # -- inside --------------------------------------------------------------------------------------------
    def _run(self, lock: Lock, confirmed: bool, on_progress: OnProgress) -> ExpiryResult:
        now, fact = self._clock(), dict(self._ledger.recall(FACT) or {})
        last = _time(fact)
        shorter = tuple(self._terms.shorter_than(Terms.from_fact(fact.get("terms"))))
        try:
            record = self._record(fact)
        except StorageError as error:
            return self._hold(fact, f"what was accepted before cannot be read: {error}")
        if record is not None and (last is None or record.at > last):  # the ledger was lost, or rolled back
            shorter = tuple(self._terms.shorter_than(Terms.from_fact(record.terms)))
        if self._terms.shortest_days is not None and self._ledger.recall(RECONCILE_FACT) is None:
            return self._hold(fact, "the ledger was not compared with the destinations yet")
        counts = self._ledger.counts().states
        archive = sum(counts.get(state, 0) for state in KEPT_STATES)
        # a ledger that was swept and compared, and holds nothing archived, is a new one, not a lost one
        is_known = "terms" in fact or record is not None
        is_new = archive == 0 and not is_known and self._ledger.recall(SWEEP_FACT) is not None
        is_accepted = not shorter or confirmed or is_new
        fact |= {"at": now.isoformat(), "withheld": "" if is_accepted else "; ".join(shorter), "held": ""}
        fact |= self._soon(now)
        if not is_accepted:
            self._ledger.remember(FACT, fact)
            log.warning("expiry_withheld", terms=shorter, advice="`archiver expire --yes` accepts them")
            return ExpiryResult(withheld=shorter)
        if shorter:
            log.warning("terms_accepted", terms=self._terms.as_fact())
        share = _Share.of(fact, record, now, archive)
        fact |= {**share.as_fact(), "terms": self._terms.as_fact()}
        self._ledger.remember(FACT, fact)
        if self._is_outdated(record):
            self._write(now, share)
        past = (last, record.at if record else None)
        return self._delete_due(lock, now, fact, share, past, on_progress)

    def _delete_due(
        self,
        lock: Lock,
        now: datetime,
        fact: dict[str, object],
        share: _Share,
        past: Sequence[datetime | None],
        on_progress: OnProgress,
    ) -> ExpiryResult:
        """`past`: when it was run before."""
        expired = unfinished = 0
        due = self.due()
        while share.left and (batch := list(islice(due, min(AT_ONCE, share.left)))):
            lock.extend()
            is_first = not expired and not unfinished
            if is_first and (why := clock_evidence.problem(self._ledger, self._destinations, now, past)):
                return self._hold(fact, why)
            share = share.begin(len(batch))  # first: killed, it must not begin anew
            self._ledger.remember(FACT, {**fact, **share.as_fact()})
            if not self._write(now, share):
                return self._hold({**fact, **share.as_fact()}, "no destination takes the record of it")
            for removal in self.expire(batch):
                expired, unfinished = expired + removal.is_done, unfinished + (not removal.is_done)
            on_progress("expiring", share.begun)
        result = ExpiryResult(expired, unfinished, 0 if share.left else self._ended_by(now))
        if result != ExpiryResult():
            self._ledger.remember(FACT, {**fact, **share.as_fact(), **self._soon(now)})
            log.info("expiry_ended", expired=expired, unfinished=unfinished, left=result.left)
        return result

    def _record(self, fact: Mapping[str, object]) -> ExpiryRecord | None:
        """Return what the destinations know; None when everything is kept for ever, as before."""
        if (
            self._terms.shortest_days is None
            and fact.get("terms", {DEFAULT: FOR_EVER}) == self._terms.as_fact()
        ):
            return None
        return expiry_records.read_newest(self._destinations)

    def _is_outdated(self, record: ExpiryRecord | None) -> bool:
        if record is None:
            return self._terms.shortest_days is not None
        return dict(record.terms) != self._terms.as_fact()

    def _write(self, now: datetime, share: _Share) -> int:
        record = ExpiryRecord(now, self._terms.as_fact(), share.day, share.archive, share.begun)
        return expiry_records.write(self._destinations, record)

    def _hold(self, fact: Mapping[str, object], why: str) -> ExpiryResult:
        """Delete nothing, and say why. What was accepted stays as it was known."""
        self._ledger.remember(FACT, {**fact, "held": why})
        log.warning("expiry_held", reason=why)
        return ExpiryResult(held=why)

    def expire(self, rows: Sequence[Row]) -> Iterator[Removal]:
        """Delete what is left of these, and call them EXPIRED. Idempotent. Raises LedgerError."""
        for days in dict.fromkeys(self._terms.days(row.type) for row in rows):
            ids = [row.asset_id for row in rows if self._terms.days(row.type) == days]
            yield from self._eraser.erase(ids, ticket=f"kept {days} days", state=AssetState.EXPIRED)

    def gone(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield those of `rows`, which have no manifest anywhere, of which no destination has an object either: `run`
        deletes what is left of the others, within the day's share. Ends after MOST_LEFT others. Raises LedgerError."""
        left = 0
        for row in rows:
            try:
                is_left = self._eraser.is_anything_left(row)
            except StorageError as error:
                log.warning("objects_not_listed", asset_id=row.asset_id, reason=str(error))
                is_left = True
            if not is_left:
                yield row
            elif (left := left + 1) == MOST_LEFT:
                return

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
                    dated.append(found.manifest.approved_at)
        except StorageError as error:
            log.warning("manifest_not_readable", asset_id=row.asset_id, reason=str(error))
            return False
        ends_at = terms.ends_at(row, max(dated) if dated else latest_archived_at(row))
        return ends_at is not None and ends_at <= now

    def _accepted(self) -> Terms:
        return Terms.from_fact((self._ledger.recall(FACT) or {}).get("terms"))


@dataclass(frozen=True, slots=True)
class _Share:
    """What may expire on `day`: of `archive` assets one in SHARE, of which `begun` have."""

    day: date
    archive: int
    begun: int = 0

    @classmethod
    def of(
        cls, fact: Mapping[str, object], record: ExpiryRecord | None, now: datetime, archive: int
    ) -> _Share:
        """By what the ledger or a destination knows of today, whichever began more."""
        today = now.astimezone(UTC).date()
        known = []
        if fact.get("day") == today.isoformat():
            known.append((_number(fact, "archive"), _number(fact, "begun")))
        if record is not None and record.day == today:
            known.append((record.archive, record.begun))
        if not known:
            return cls(today, archive)
        return cls(today, min(each for each, _ in known), max(begun for _, begun in known))

    @property
    def left(self) -> int:
        return max(0, max(1, self.archive // SHARE) - self.begun)

    def begin(self, number: int) -> _Share:
        return replace(self, begun=self.begun + number)

    def as_fact(self) -> dict[str, object]:
        return {"day": self.day.isoformat(), "archive": self.archive, "begun": self.begun}


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
    if held := fact.get("held"):
        yield finding("expiry_held", f"Nothing expires at the moment: {held}.")
    number, first = _number(fact, "soon"), parse_time(fact.get("first"))
    if number and first is not None and not fact.get("withheld"):
        yield finding(
            "expiring_soon",
            f"{number:,} assets expire within {SOON.days} days, the first on {first:%Y-%m-%d}.",
        )


def _time(fact: Mapping[str, object]) -> datetime | None:
    return parse_time(fact.get("at"))


def _number(fact: Mapping[str, object], name: str) -> int:
    value = fact.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
