"""Notice that nobody looks for alerts any more: without `archiver serve` nothing is told to anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from archiver.core.alerts import BOOK_FACT, LOOKED_AT
from archiver.core.health import SILENCE
from archiver.core.health_rules import Finding, finding
from archiver.core.upkeep.reports import RECONCILE_EXPECTED_FACT
from archiver.core.upkeep.status import WATCH_FACT
from archiver.hms.models import parse_time

SILENT_AFTER = timedelta(minutes=10)
"""Longer than the lock of a look that was killed, and than a restart; `serve` looks each minute."""


def alert_loop_findings(facts: Mapping[str, Mapping[str, object]], now: datetime) -> Iterator[Finding]:
    """For an installation that has channels. `facts`: the ledger's.

    Only while the control worker is heard: where cron runs everything nobody serves, and where nothing runs that is
    told. A book of an earlier version does not tell when it was looked at."""
    watched = _time(facts, WATCH_FACT, "at")
    if watched is None or now - watched > SILENCE:
        return
    since = _time(facts, RECONCILE_EXPECTED_FACT, "since")
    if BOOK_FACT in facts:
        since = _time(facts, BOOK_FACT, LOOKED_AT)
    if since is not None and now - since > SILENT_AFTER:
        yield finding(
            "alerts_are_silent",
            f"Nobody has looked for alerts since {since:%Y-%m-%d %H:%M} UTC: `archiver serve` is dead or stuck, and no "
            "channel is told of anything.",
        )


def _time(facts: Mapping[str, Mapping[str, object]], fact: str, name: str) -> datetime | None:
    return parse_time(facts.get(fact, {}).get(name))
