"""The report of the monthly statements: a fact in the ledger, and what `status` says when one is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from archiver.core.health_rules import Finding, finding
from archiver.core.records.statements import due_at, last_due
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts

FACT = "statements"
GRACE = timedelta(days=3)
"""From when a statement is due until a missing one is a problem: a destination may be away for some nights."""


def expect_statements(ledger: Facts, now: datetime) -> Mapping[str, object]:
    """Return the fact; start the time from which statements are looked for, unless it has started. Raises
    LedgerError."""
    fact = ledger.recall(FACT)
    if fact is None:
        fact = {"since": now.isoformat()}
        ledger.remember(FACT, fact)
    return fact


def record_statements(ledger: Facts, failed: Mapping[str, str | None], now: datetime) -> None:
    """Record one run over all destinations. `failed`: by the name of each, why a statement that is due is missing
    there; None when none is. Raises LedgerError."""
    fact = expect_statements(ledger, now)
    before = fact.get("destinations")
    known = before if isinstance(before, Mapping) else {}
    runs: dict[str, object] = {}
    for name, why in failed.items():
        last = known.get(name)
        complete_at = last.get("complete_at") if isinstance(last, Mapping) else None
        runs[name] = {"complete_at": complete_at if why else now.isoformat(), "why": why}
    ledger.remember(FACT, {"since": fact.get("since"), "at": now.isoformat(), "destinations": runs})


def statement_findings(fact: Mapping[str, object], now: datetime, retention: timedelta) -> Iterator[Finding]:
    """For an installation with a signing key: which destination lacks last month's statement, GRACE after it was due,
    as far as any run has found."""
    month = last_due(now - GRACE, retention)
    due = due_at(month, retention)
    runs = fact.get("destinations")
    for name, run in sorted(runs.items()) if isinstance(runs, Mapping) else ():
        complete_at = parse_time(run.get("complete_at"))
        if complete_at is not None and complete_at >= due:
            continue
        if complete_at is None and not _waited(fact, now):
            continue
        why = run.get("why") or f"none was made since {parse_time(fact.get('at')) or now:%Y-%m-%d}"
        yield finding(
            "statement_missing",
            f"The statement of {month} is missing at {name}, or was not looked for; it was due on {due:%Y-%m-%d}: "
            f"{why}. `archiver statement` makes it, or says what keeps it from that.",
            cause=name,
        )
    if not runs and _waited(fact, now):
        yield finding(
            "statement_missing",
            f"Nothing has looked for the statement of {month}, which was due on {due:%Y-%m-%d}: the nightly run of the "
            "control worker did not end. `archiver statement` makes it.",
        )


def _waited(fact: Mapping[str, object], now: datetime) -> bool:
    since = parse_time(fact.get("since"))
    return since is not None and now - since > GRACE
