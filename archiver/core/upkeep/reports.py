"""Reports of verify, reconcile and scrub: facts in the ledger that `status` reads without asking a bucket."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from archiver.core.health_rules import Finding, finding
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts, Ledger

VERIFY_FACT = "verify"
RECONCILE_FACT = "reconcile"
BEGAN = "began"
"""In RECONCILE_FACT: when it began, by the ledger's clock."""
RECONCILE_EXPECTED_FACT = "reconcile_expected"
SCRUB_FACT = "scrub"
REPLICATE_FACT = "replicate"
OLD_SCRUB_FACTS = "scrub:"
"""Prefix of an earlier version's facts, deleted when a scrub ends."""

KEEP_DAMAGED_FOR = timedelta(days=90)
MAX_DAMAGED = 200  # ids kept: more are one disaster
LATE = timedelta(days=3)
"""A daily scrub that has not finished for this long is a problem."""
RECONCILE_OVERDUE = timedelta(hours=6)
"""An hourly reconcile that has not ended for this long is tried with each sweep too."""
RECONCILE_LATE = timedelta(days=1)
"""One that has not ended for this long is a problem: a manifest that is gone was not noticed."""
FUTURE = timedelta(hours=1)


# -- verify --------------------------------------------------------------------------------------------------
def record_verify(
    ledger: Ledger, *, damaged: Collection[str], whole: Collection[str], everything: bool
) -> None:
    """Remember the assets that a run found `damaged`, and forget those that it found `whole`. `everything`: every asset
    was verified, so no other is damaged. Idempotent. Raises LedgerError."""
    fact = ledger.recall(VERIFY_FACT) or {}
    before = fact.get("bad")
    known = {one for one in before if isinstance(one, str)} if isinstance(before, list) else set()
    now_damaged = set(damaged) if everything else (known - set(whole)) | set(damaged)
    if not now_damaged:
        ledger.forget(VERIFY_FACT)
        return
    report = {"bad": sorted(now_damaged)[:MAX_DAMAGED], "at": ledger.now().isoformat()}
    ledger.remember(VERIFY_FACT, report, lifetime=KEEP_DAMAGED_FOR)


def still_damaged(ledger: Ledger) -> Iterator[str]:
    """Ids of assets that verify found damaged and that have not changed since. Raises LedgerError."""
    fact = ledger.recall(VERIFY_FACT) or {}
    at, damaged = parse_time(fact.get("at")), fact.get("bad")
    if at is None or not isinstance(damaged, list):
        return
    for asset_id in damaged:
        row = ledger.get(str(asset_id))
        if row is None or row.changed_at <= at:
            yield str(asset_id)


def verify_findings(ledger: Ledger) -> Iterator[Finding]:
    """Raises LedgerError."""
    if damaged := list(still_damaged(ledger)):
        were = "1 asset was" if len(damaged) == 1 else f"{len(damaged):,} assets were"
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        yield finding(
            "found_damaged",
            f"{were} found damaged by `archiver verify`: {', '.join(damaged[:3])}{more}. While 100ms has the "
            "recording: `archiver archive --again ID`; else `archiver replicate`, or bring the objects back and verify "
            "it again.",
        )


# -- reconcile -----------------------------------------------------------------------------------------------
def expect_reconcile(ledger: Facts, now: datetime) -> None:
    """Start the time after which a missing reconcile is a problem, unless it has started. Raises LedgerError."""
    if ledger.recall(RECONCILE_EXPECTED_FACT) is None:
        ledger.remember(RECONCILE_EXPECTED_FACT, {"since": now.isoformat()})


def reconcile_is_overdue(ledger: Facts, now: datetime) -> bool:
    """Whether none has ended within RECONCILE_OVERDUE, or ever. Raises LedgerError."""
    ended = parse_time((ledger.recall(RECONCILE_FACT) or {}).get("at"))
    return ended is None or not now - RECONCILE_OVERDUE <= ended <= now + FUTURE


def late_reconcile_findings(
    report: Mapping[str, object] | None, expected: Mapping[str, object] | None, now: datetime
) -> Iterator[Finding]:
    """`expected`: the fact of `expect_reconcile`; None: no control process runs."""
    since = parse_time((expected or {}).get("since"))
    if since is None:
        return
    last = max(since, parse_time((report or {}).get("at")) or since)
    if now - last > RECONCILE_LATE:
        yield finding(
            "reconcile_is_late",
            f"The ledger was last compared with the destinations {_days(now - last)} ago, which is due each hour: a "
            "copy that was deleted since is not noticed.",
        )


def reconcile_findings(report: Mapping[str, object] | None) -> Iterator[Finding]:
    """Fields that this version does not understand are ignored: another version may have written them."""
    if not report:
        return
    if number := _count(report, "would_change"):
        names = report.get("would_change_at")
        at = f" at {', '.join(map(str, names))}" if isinstance(names, list | tuple) and names else ""
        yield finding(
            "reconcile_stopped",
            f"{number:,} assets lack a copy{at} that the ledger calls archived, too many at once to believe. Restore "
            "it from the bucket's versions or a backup; if the copies are really gone: `archiver reconcile --yes`.",
        )
    if number := _count(report, "unreadable"):
        yield finding(
            "manifests_unreadable",
            f"{number:,} assets have a manifest that cannot be read: whether they are archived is not known.",
        )


def _count(report: Mapping[str, object], name: str) -> int:
    value = report.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


# -- scrub ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ScrubReport:
    """One destination when its part of a scrub ended."""

    at: datetime
    copies: int = 0
    overdue: int = 0
    due_by: datetime | None = None  # when the first copy becomes overdue; None: there are no copies
    oldest_check: datetime | None = None
    never_read: int = 0
    cold: int = 0
    coldest_read: datetime | None = None  # the oldest full read of a cold copy; None: one was never read
    damaged: int = 0
    unreadable: int = 0
    round_days: float = 0.0  # to check every copy once, within the budget
    recorded: bool = True  # the check records were there, and could be written
    error: str | None = None  # why nothing could be checked


def expect_scrub(ledger: Facts, now: datetime) -> None:
    """Start the time after which a missing scrub is a problem, unless it has started. Raises LedgerError."""
    if ledger.recall(SCRUB_FACT) is None:
        ledger.remember(SCRUB_FACT, {"since": now.isoformat(), "destinations": {}})


def record_scrub(ledger: Facts, reports: Mapping[str, ScrubReport], every: timedelta, now: datetime) -> None:
    """Replace the last report. A destination that could not be read keeps its last values, with the error. Raises
    LedgerError."""
    before = ledger.recall(SCRUB_FACT) or {}
    known = before.get("destinations")
    destinations: dict[str, object] = {}
    for name, report in reports.items():
        last = known.get(name) if isinstance(known, Mapping) else None
        if report.error is None:
            destinations[name] = _plain(report)
        elif isinstance(last, Mapping):
            destinations[name] = {**last, "error": report.error}
        else:
            destinations[name] = {"error": report.error, "since": now.isoformat()}
    fact = {
        "at": now.isoformat(),
        "since": before.get("since") or now.isoformat(),
        "every_days": every / timedelta(days=1),
        "destinations": destinations,
    }
    ledger.remember(SCRUB_FACT, fact)
    for old in ledger.recall_all(OLD_SCRUB_FACTS):
        ledger.forget(old)


def scrub_recorded_checks(ledger: Facts, name: str) -> bool:
    """Return whether the last scrub left check records at the destination `name`. Raises LedgerError."""
    destinations = (ledger.recall(SCRUB_FACT) or {}).get("destinations")
    report = destinations.get(name) if isinstance(destinations, Mapping) else None
    return isinstance(report, Mapping) and _number(report.get("copies")) > 0


def scrub_findings(fact: Mapping[str, object] | None, now: datetime) -> Iterator[Finding]:
    for problem in scrub_problems(fact, now):
        yield finding("scrub_promise_slips", problem)
    for note in scrub_notes(fact, now):
        yield finding("scrubbed", note)


def scrub_problems(fact: Mapping[str, object] | None, now: datetime) -> list[str]:
    """Return one sentence for each reason why copies were, or may not have been, checked in time. Without a fact no
    scrub is expected yet (`expect_scrub`)."""
    if fact is None:
        return []
    found = []
    ended = parse_time(fact.get("at"))
    last = ended or parse_time(fact.get("since"))
    if last is None or last > now + FUTURE:
        found.append("The last scrub is dated in the future: nobody knows when it ran.")
    elif now - last > LATE:
        found.append(f"No scrub has ended for {_days(now - last)}; it is due each day.")
    destinations = fact.get("destinations")
    every = _number(fact.get("every_days"))
    for name, each in (destinations if isinstance(destinations, Mapping) else {}).items():
        if isinstance(each, Mapping):
            found += [f"{name}: {problem}" for problem in _problems_at(each, every, now)]
    return found


def scrub_notes(fact: Mapping[str, object] | None, now: datetime) -> list[str]:
    """Return one sentence for each destination: copies, oldest check, cold copies."""
    destinations = (fact or {}).get("destinations")
    notes = []
    for name, each in (destinations if isinstance(destinations, Mapping) else {}).items():
        if not isinstance(each, Mapping):
            continue
        if "at" not in each:
            notes.append(f"{name}: no scrub could read it yet.")
            continue
        oldest = parse_time(each.get("oldest_check"))
        ago = f"the oldest check is {_days(now - oldest)} old" if oldest else "none checked yet"
        words = f"{name}: {int(_number(each.get('copies'))):,} copies, {ago}"
        if cold := int(_number(each.get("cold"))):
            read = parse_time(each.get("coldest_read"))
            last = f"last read on {read:%Y-%m-%d} or later" if read else "not all were ever read"
            words += f", {cold:,} cold ({last})"
        notes.append(f"{words}.")
    return notes


def _problems_at(report: Mapping[str, object], every: float, now: datetime) -> list[str]:
    found = []
    error, overdue, due_by = (
        report.get("error"),
        _number(report.get("overdue")),
        parse_time(report.get("due_by")),
    )
    if error:
        since = parse_time(report.get("at")) or parse_time(report.get("since"))
        if since is None or now - since > LATE:
            for_long = _days(now - since) if since else "an unknown time"
            found.append(f"it could not be scrubbed for {for_long}: {error}")
    if overdue:
        copies = "1 copy was" if overdue == 1 else f"{overdue:,.0f} copies were"
        found.append(f"{copies} not checked within {every:g} days, or not read in time when new.")
    elif due_by is not None and due_by < now:
        found.append(f"a copy was not checked within {every:g} days, or not read in time when new.")
    if (takes := _number(report.get("round_days"))) > every > 0:
        found.append(
            f"at the budget a round takes {takes:.0f} days, not {every:g}: raise ARCHIVER_SCRUB_BYTES or "
            "ARCHIVER_SCRUB_DAYS."
        )
    if report.get("recorded") is False:
        found.append(
            "the record of the checks (`checks/`) was lost, or cannot be written: a new round begins."
        )
    return found


def _plain(report: ScrubReport) -> dict[str, object]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(report).items()
        if value is not None
    }


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _days(duration: timedelta) -> str:
    for name, unit in (("days", timedelta(days=1)), ("hours", timedelta(hours=1))):
        if (number := duration / unit) >= 2:
            return f"{number:.0f} {name}"
    minutes = max(round(duration / timedelta(minutes=1)), 1)
    return "1 minute" if minutes == 1 else f"{minutes} minutes"
