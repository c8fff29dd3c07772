"""What `archiver verify` found damaged, for `status`: whoever runs it from cron may not read what it prints."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta

from archiver.hms.models import parse_time
from archiver.ledger.base import Ledger

FACT = "verify"
LIFETIME = timedelta(days=90)
MOST = 200  # ids kept: more are one disaster, and told by these


def note(ledger: Ledger, *, bad: Collection[str], whole: Collection[str], everything: bool) -> None:
    """Remember the `bad` assets of a run, and forget those that it found `whole`. `everything`: every asset was looked
    at, so that no other is bad. Idempotent. Raises LedgerError."""
    fact = ledger.recall(FACT) or {}
    before = fact.get("bad")
    known = {one for one in before if isinstance(one, str)} if isinstance(before, list) else set()
    now_bad = set(bad) if everything else (known - set(whole)) | set(bad)
    if not now_bad:
        ledger.forget(FACT)
        return
    told = {"bad": sorted(now_bad)[:MOST], "at": ledger.now().isoformat()}
    ledger.remember(FACT, told, lifetime=LIFETIME)


def still_bad(ledger: Ledger) -> Iterator[str]:
    """Ids of assets that were found damaged, and of which nothing was recorded since. Raises LedgerError."""
    fact = ledger.recall(FACT) or {}
    at, bad = parse_time(fact.get("at")), fact.get("bad")
    if at is None or not isinstance(bad, list):
        return
    for asset_id in bad:
        row = ledger.get(str(asset_id))
        if row is None or row.changed_at <= at:
            yield str(asset_id)
