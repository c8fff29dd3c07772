"""Decide whether an alert whose finding is absent is resolved. Pure.

A finding is absent because it is over, or because nobody looked: its record expired, or the ledger was flushed or
rolled back. What was not looked at is unknown, never well, so each rule has its evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from archiver.core.alerts import Alert
from archiver.core.deadlines import UNDATED_RETENTION
from archiver.core.health import REPEATED, UNSAVED_STATES, Summary
from archiver.core.upkeep import drill_report, expiring, reports, status, store_clocks, sweep
from archiver.core.upkeep.reports import KEEP_DAMAGED_FOR
from archiver.core.upkeep.statement_report import GRACE
from archiver.core.workspaces import REFUSED_FOR
from archiver.ledger.models import AssetState


class Look(Enum):
    """What must have been looked at."""

    SWEEP = "a sweep"
    RECONCILE = "a reconcile"
    WATCH = "a watch, or a whole `run --once`"
    SCRUB = "a scrub"
    DRILL = "a drill"
    EXPIRY = "a run of the expiry"
    CLOCKS = "a comparison of the destinations' clocks"
    ATTEMPTS = "no asset waits for its first two attempts, or for a circuit breaker"
    WORKERS = "nothing is queued, or a worker copies"
    FORECAST = "there is a forecast, or nothing is left to save"
    EVENTS = "no event waits"
    HOST = "the machine that the cause names looks itself, or did not for HOST_GONE_AFTER"


HOST_GONE_AFTER = timedelta(days=1)
"""A machine that was replaced never looks again; on one that still works a full disk is a `machine_fault` too."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What shows that an absent finding is over.

    The first seven looks are dated: they must have begun after the ledger was last seen to have lost what it knew.
    While it lost nothing they are not asked for: what a finding is made of stays until somebody finds it well.
    `expires`: it ends by itself, so they must have begun after the finding was gone, too. The other looks must hold at
    this moment.

    `kept_for`: for what no look finds again, how long its record is kept: so long after a loss it would be gone all the
    same. For what is found again only after a time, that time.
    """

    looks: frozenset[Look]
    expires: bool = False
    kept_for: timedelta = timedelta(0)


def _by(*looks: Look, expires: bool = False, kept_for: timedelta = timedelta(0)) -> Evidence:
    return Evidence(frozenset(looks), expires, kept_for)


_EACH_LOOK = _by()
"""Whoever reaches the ledger sees it."""
_ACCOUNT = _by(Look.SWEEP, Look.RECONCILE)
"""The sweep enters what 100ms has, the reconcile what became of it."""

EVIDENCE: Mapping[str, Evidence] = {
    "ledger_out_of_balance": _EACH_LOOK,
    "at_risk": _by(Look.SWEEP),
    "will_miss_deadline": _by(Look.SWEEP, Look.RECONCILE, Look.FORECAST),
    "lost": _ACCOUNT,
    "damaged": _ACCOUNT,
    "needs_source_access": _by(Look.SWEEP, Look.RECONCILE, Look.ATTEMPTS),
    "quarantined": _ACCOUNT,
    "source_failed": _ACCOUNT,
    "clock_is_wrong": _by(Look.SWEEP),
    "destination_clock_is_wrong": _by(Look.CLOCKS),
    "ledger_of_another_workspace": _by(kept_for=REFUSED_FOR),
    "no_sweep": _EACH_LOOK,
    "sweep_is_late": _by(Look.SWEEP),
    "control_is_silent": _by(Look.WATCH),
    "workers_are_silent": _by(Look.SWEEP, Look.WORKERS),
    "on_hold": _by(Look.SWEEP, Look.RECONCILE, Look.WATCH, expires=True),  # the API, reading, writing
    "destination_unknown": _by(
        Look.RECONCILE, expires=True
    ),  # it ends only if every destination could be read
    "destination_refuses": _by(Look.RECONCILE, expires=True),
    "destination_silent": _by(Look.RECONCILE, Look.WATCH, expires=True),
    "many_fail": _by(Look.SWEEP, Look.RECONCILE, Look.ATTEMPTS),
    "assets_without_id": _by(Look.SWEEP),
    "list_is_empty": _by(Look.SWEEP),
    "announced_not_listed": _by(kept_for=UNDATED_RETENTION),
    "reconcile_stopped": _by(Look.RECONCILE),
    "reconcile_is_late": _by(Look.RECONCILE),
    "manifests_unreadable": _by(Look.RECONCILE),
    "machine_fault": _by(
        Look.SWEEP, Look.ATTEMPTS, expires=True
    ),  # the work is done, by that machine or others
    "copies_missing": _ACCOUNT,
    "scrub_promise_slips": _by(Look.SCRUB),
    "drill_failed": _by(Look.DRILL),
    "drill_is_late": _by(Look.DRILL),
    "statement_missing": _by(kept_for=GRACE + timedelta(hours=1)),  # by then it is found again
    "failed_later": _ACCOUNT,
    "found_damaged": _by(kept_for=KEEP_DAMAGED_FOR),
    "ledger_unreachable": _EACH_LOOK,
    "ledger_may_lose_rows": _EACH_LOOK,
    "ledger_not_persistent": _EACH_LOOK,
    "disk_nearly_full": _by(Look.HOST),
    "alert_channel_fails": _EACH_LOOK,
    "alerts_are_silent": _EACH_LOOK,
    "events_not_delivered": _by(Look.RECONCILE, Look.EVENTS),  # it makes the events anew
    "events_dropped": _by(Look.RECONCILE),
    "erasure_unfinished": _ACCOUNT,
    "expiry_unconfirmed": _by(Look.EXPIRY),
    "expiry_held": _by(Look.EXPIRY),
}
"""By rule, for each that is a problem."""

_FACTS: Mapping[Look, tuple[str, ...]] = {
    Look.SWEEP: (sweep.FACT,),
    Look.RECONCILE: (reports.RECONCILE_FACT,),
    Look.WATCH: (status.WATCH_FACT, status.RAN_ONCE_FACT),
    Look.SCRUB: (reports.SCRUB_FACT,),
    Look.DRILL: (drill_report.DRILL_FACT,),
    Look.EXPIRY: (expiring.FACT,),
    Look.CLOCKS: (store_clocks.FACT,),
}
"""The ledger's facts of which any dates the last such look."""


def is_over(alert: Alert, summary: Summary, ledger_lost_at: datetime | None) -> bool:
    """Whether `alert`, whose finding is absent, is known to be over. `ledger_lost_at`: when the ledger was last seen to
    have lost what it knew."""
    evidence = EVIDENCE[alert.rule_id]
    if not all(_holds(look, alert, summary) for look in evidence.looks - _FACTS.keys()):
        return False
    times = [ledger_lost_at, alert.gone_since if evidence.expires else None]
    since = max((at for at in times if at is not None), default=None)
    if since is None:
        return True
    began = [_began(look, summary) for look in evidence.looks & _FACTS.keys()]
    are_new = all(at is not None and since <= at <= summary.at for at in began)
    return are_new and summary.at - since >= evidence.kept_for


def _began(look: Look, summary: Summary) -> datetime | None:
    found = [summary.looked[name] for name in _FACTS[look] if name in summary.looked]
    return max(found, default=None)


def _holds(look: Look, alert: Alert, summary: Summary) -> bool:
    """What must be so at this moment."""
    number = summary.counts.states.get
    match look:
        case Look.ATTEMPTS:
            untried = number(AssetState.DISCOVERED, 0) + number(AssetState.QUEUED, 0)
            retried = all(row.attempts >= REPEATED for row in summary.waiting)
            return not untried and retried and not summary.open_breakers
        case Look.WORKERS:
            return not number(AssetState.QUEUED, 0) or number(AssetState.RUNNING, 0) > 0
        case Look.FORECAST:
            return summary.forecast is not None or not any(number(state, 0) for state in UNSAVED_STATES)
        case Look.EVENTS:
            return summary.events_waiting == 0
        case Look.HOST:
            gone_since = alert.gone_since or summary.at
            return alert.cause == summary.host or summary.at - gone_since >= HOST_GONE_AFTER
        case _:
            raise ValueError(f"{look} is dated")
