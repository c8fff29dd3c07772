"""Decide which rules fire on the facts in a `Summary`, and the headline and exit code. Pure.

`status`, `watch`, `run --once` and the alarms use the same findings, so they cannot disagree. What is not known is a
problem, never "well".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime, timedelta

from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.deadlines import UNDATED, alarm_level
from archiver.core.destinations.breaker import PAUSED, OpenBreaker, destination_of
from archiver.core.forecast import Forecast
from archiver.core.health_rules import Finding, finding
from archiver.hms.models import parse_time
from archiver.ledger.models import COUNTED_STATES, OPEN_STATES, AssetState, CopyState, Counts, Progress, Row

UNSAVED_STATES = OPEN_STATES | {AssetState.NEEDS_SOURCE_ACCESS}
"""States of an asset that may still be saved, and of which perhaps nothing is stored."""

ATTENTION_STATES = (
    AssetState.LOST,
    AssetState.DAMAGED,
    AssetState.QUARANTINED,
    AssetState.NEEDS_SOURCE_ACCESS,
    AssetState.SOURCE_FAILED,
)
"""Ends that need a person until `archiver ack` acknowledges them."""

MISSED_SWEEPS = 3
"""Intervals without a sweep after which it is late: one may be missed."""
LONGEST_SWEEP = timedelta(hours=6)
"""A sweep that has run for longer is late."""
SILENCE = timedelta(minutes=5)
"""The control worker watches every minute; after this long without a watch, it is dead or stuck."""
MANY = 10
"""From this many assets on, one common reason is a fault of something they share."""
REPEATED = 2
"""Attempts from which on an asset keeps failing."""


@dataclass(frozen=True, slots=True)
class Failing:
    """Waiting assets that keep failing for one reason. `number` is exact unless `or_more`."""

    reason: str
    number: int
    or_more: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """The facts at one moment, all times by the ledger's clock. Row lists are cut; `counts` is not."""

    at: datetime
    counts: Counts
    at_risk_within: timedelta
    sweep_every: timedelta
    last_sweep: Mapping[str, object] | None = None
    sweeping_since: datetime | None = None  # of a sweep that is running
    watched_at: datetime | None = None  # the control worker's last watch; None: no beat ever ran here
    ran_once_at: datetime | None = None  # the last `archiver run --once`
    at_risk: tuple[Row, ...] = ()  # unsaved, with less than `at_risk_within` left, most urgent first
    at_risk_or_more: bool = False
    waiting: tuple[Row, ...] = ()  # to be retried, with the reason
    needs_attention: tuple[Row, ...] = ()  # ends that nobody has acknowledged
    with_warnings: tuple[Row, ...] = ()  # archived without something optional, such as a thumbnail
    running: tuple[Progress, ...] = ()
    open_breakers: Mapping[str, OpenBreaker] = field(default_factory=dict)
    failing: tuple[Failing, ...] = ()
    reported: tuple[Finding, ...] = ()  # by sweep, reconcile, scrub, verify and the workers' machines
    idle_since: datetime | None = None  # assets are queued, and nothing is copied
    recorded: Mapping[str, datetime] = field(
        default_factory=dict
    )  # latest time in each of the ledger's facts
    looked: Mapping[str, datetime] = field(default_factory=dict)  # by fact, when the last such look began
    host: str = ""  # the machine that looks
    events_waiting: int = 0
    next_due_at: datetime | None = None
    forecast: Forecast | None = None  # None: too little was measured
    removed_destinations: frozenset[str] = (
        frozenset()
    )  # no longer configured: what they lack is of no interest
    replicated: Mapping[str, object] | None = None  # the last automatic run of replicate
    crossings: Mapping[int, int] = field(
        default_factory=dict
    )  # by ALARM_LEVELS in days: how many assets ever came under it

    @property
    def swept_at(self) -> datetime | None:
        """Return when the last sweep that ended began."""
        return parse_time(self.last_sweep.get("started_at")) if self.last_sweep else None

    @property
    def sweep_is_late(self) -> bool:
        """No sweep has begun for MISSED_SWEEPS intervals, and none is running, or one for LONGEST_SWEEP."""
        if self.swept_at is None or self.at - self.swept_at <= MISSED_SWEEPS * self.sweep_every:
            return False
        return self.sweeping_since is None or self.at - self.sweeping_since > LONGEST_SWEEP

    @property
    def healthy(self) -> bool:
        return assess(self).healthy


@dataclass(frozen=True, slots=True)
class Health:
    """What the findings amount to. `headline`: one line, which says "safe" only when that is known."""

    headline: str
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.is_problem)

    @property
    def notes(self) -> tuple[str, ...]:
        """Worth knowing; nothing to do."""
        return tuple(each.text for each in self.findings if not each.is_problem)

    @property
    def healthy(self) -> bool:
        """Everything is known, and nothing needs a person."""
        return not self.problems

    @property
    def exit_code(self) -> int:
        return 0 if self.healthy else 1


def assess(summary: Summary) -> Health:
    """Derive headline, `healthy` and exit code from the findings."""
    found = find(summary)
    return Health(_headline(summary, found), found)


def find(summary: Summary) -> tuple[Finding, ...]:
    """The rules that fire, in the order in which they are shown: problems first."""
    return (*_problems(summary), *_notes(summary))


def alert_findings(summary: Summary) -> tuple[Finding, ...]:
    """The problems, as alerts tell them: assets at risk by ALARM_LEVELS, each a cause of its own, so that a second
    asset with a day left is told although the first one was."""
    problems = (each for each in find(summary) if each.is_problem and each.id != "at_risk")
    by_level: dict[int, list[Row]] = {}
    for row in summary.at_risk:
        if (level := alarm_level(row.expires_at, summary.at)) is not None:
            by_level.setdefault(level.days, []).append(row)
    at_risk = (
        finding(
            "at_risk",
            _named_at_risk(rows, days, or_more=summary.at_risk_or_more),
            cause=f"{days} d",
            level=summary.crossings.get(days, 0),
        )
        for days, rows in sorted(by_level.items())
    )
    return (*at_risk, *problems)


def _named_at_risk(rows: Sequence[Row], days: int, *, or_more: bool) -> str:
    number = f"{len(rows):,} or more assets" if or_more else _assets(len(rows))
    first = rows[0]
    until = "unknown" if first.expires_at == UNDATED else f"{first.expires_at:%Y-%m-%d %H:%M} UTC"
    why = f" Its last failure: {first.reason}" if first.reason else ""
    return (
        f"{number} not saved, with less than {'1 day' if days == 1 else f'{days} days'} left. The most urgent is "
        f"{first.asset_id} ({first.type}), deadline {until}.{why}"
    )


def _headline(summary: Summary, found: tuple[Finding, ...]) -> str:
    if not any(each.is_problem for each in found):
        return _saved(summary.counts, known=True)
    if not summary.counts.balanced:
        headline = "The account does not balance: what it says cannot be relied on."
    elif summary.counts.seen == 0:
        headline = "Nothing is known yet." if summary.swept_at is None else "No asset seen yet."
    else:
        headline = _saved(summary.counts, known=False)
    return f"Needs attention: {headline[0].lower()}{headline[1:]}"


def unacknowledged(counts: Counts, state: AssetState) -> int:
    """Count the assets in `state` that nobody acknowledged."""
    return counts.states.get(state, 0) - counts.acknowledged.get(state, 0)


# -- what is wrong -------------------------------------------------------------------------------------------
def _problems(summary: Summary) -> Iterator[Finding]:
    if not summary.counts.balanced:
        seen, states = summary.counts.seen, sum(summary.counts.states.values())
        yield finding("ledger_out_of_balance", f"{seen:,} assets were seen and {states:,} have a state.")
    yield from _at_risk(summary)
    yield from _will_miss(summary)
    yield from _ends(summary.counts)
    yield from _copies(summary)
    yield from find_no_progress(summary)
    for name, breaker in summary.open_breakers.items():
        cause = name if breaker.code == "on_hold" else destination_of(name)
        reason = breaker.reason if breaker.reason.startswith(cause) else f"{cause}: {breaker.reason}"
        state = until = ""
        if breaker.code == "on_hold":
            is_open = breaker.until > summary.at
            state = f"Circuit breaker {'open until' if is_open else 'half-open since'} {breaker.until:%H:%M:%S} UTC: "
        elif breaker.code == PAUSED:
            until = f". Until {breaker.until:%Y-%m-%d %H:%M} UTC, or `archiver resume`."
        yield finding(breaker.code, f"{state}{reason}{until}", cause=cause)
    for failing in summary.failing:
        if failing.number >= MANY:
            number = f"{failing.number:,} or more" if failing.or_more else f"{failing.number:,}"
            yield finding("many_fail", f"{number} assets keep failing for one reason: {failing.reason}")
    yield from (each for each in summary.reported if each.is_problem)


def _at_risk(summary: Summary) -> Iterator[Finding]:
    if number := len(summary.at_risk):
        of_them = f"{number:,} or more assets" if summary.at_risk_or_more else _assets(number)
        are = "is" if number == 1 else "are"
        days = summary.at_risk_within / timedelta(days=1)
        yield finding(
            "at_risk", f"{of_them} {are} at risk: not saved, and less than {days:g} days are left, or none."
        )


def _will_miss(summary: Summary) -> Iterator[Finding]:
    found = summary.forecast
    if found is None or found.first_missed_at is None:
        return
    low, likely, high = (round(number) for number in astuple(found.missed_assets))
    size = found.missed_bytes.likely / 1e9
    band = f", {low:,} to {high:,} of them in nine cases of ten" if low < high else ""
    yield finding(
        "will_miss_deadline",
        f"At this rate {_assets(likely)} ({size:,.1f} GB) will not be saved in time{band}; the first deadline that is "
        f"missed is {found.first_missed_at:%Y-%m-%d %H:%M} UTC.",
        level=likely,
    )


def lacking(counts: Counts, removed: frozenset[str] = frozenset()) -> dict[str, int]:
    """Return by destination how many stored assets it does not hold whole, where it is known to lack any."""
    found = {
        name: states.get(CopyState.LACKING, 0) + states.get(CopyState.DAMAGED, 0)
        for name, states in sorted(counts.copies.items())
        if name not in removed
    }
    return {name: number for name, number in found.items() if number > 0}


def not_compared(counts: Counts, names: Collection[str]) -> Iterator[Finding]:
    """Yield a problem for each of these destinations of which no asset's copy is known: it was added since the last
    reconcile. A ledger of an earlier version, which knows of no copy at all, is filled by the next one."""
    stored = sum(counts.states.get(state, 0) for state in COUNTED_STATES)
    for name in names if counts.copies else ():
        if name not in counts.copies:
            yield finding(
                "copies_missing",
                f"{name} was added, and it is not known yet which of {_assets(stored)} it holds. The workers' next "
                "sweep compares them, or `archiver reconcile`.",
                cause=name,
                level=stored,
            )


def _copies(summary: Summary) -> Iterator[Finding]:
    for name, number in lacking(summary.counts, summary.removed_destinations).items():
        last = summary.replicated or {}
        why = f" The last run failed for {last['failed']}: {last.get('reason')}" if last.get("failed") else ""
        if not why and last.get("waiting"):
            why = f" {last['waiting']} that could not be copied are tried again within a day: {last.get('reason')}"
        are = "is" if number == 1 else "are"
        yield finding(
            "copies_missing",
            f"{_assets(number)} {are} not whole at {name} yet: what is whole elsewhere is replicated each hour.{why}",
            cause=name,
            level=number,
        )


_ENDS = {
    AssetState.LOST: ("is lost", "are lost", "gone at 100ms before being saved. Ask 100ms support at once."),
    AssetState.DAMAGED: (
        "is damaged",
        "are damaged",
        (
            "no longer whole, and 100ms has deleted the source. A whole copy elsewhere repairs them within the hour; "
            "else restore the objects from the bucket's versions."
        ),
    ),
    AssetState.NEEDS_SOURCE_ACCESS: (
        "needs access",
        "need access",
        "not saved, because our credentials cannot read the bucket that 100ms recorded into.",
    ),
    AssetState.QUARANTINED: (
        "is stored with doubts",
        "are stored with doubts",
        "look, then `archiver accept ID` or `archiver reject ID`.",
    ),
    AssetState.SOURCE_FAILED: ("failed at 100ms", "failed at 100ms", "final, there is nothing to save."),
}


def _ends(counts: Counts) -> Iterator[Finding]:
    for state, (one, many, rest) in _ENDS.items():
        number = unacknowledged(counts, state)
        if number > 0:
            text = f"{_assets(number)} {one if number == 1 else many}: {rest}"
            yield finding(state.value, text, level=number)


def find_no_progress(summary: Summary) -> Iterator[Finding]:
    """The rules about clocks and processes that fire. They need no row: see `status.summarize_facts`."""
    swept_at = summary.swept_at
    for name, at in summary.recorded.items():
        if at - summary.at > CLOCK_TOLERANCE:
            yield finding(
                "clock_is_wrong",
                f"`{name}` is dated {_span(at - summary.at)} in the future: the clock of the ledger's server was set "
                "back, or was ahead. What is timed by it cannot be relied on until then.",
            )
    if swept_at is None:
        yield finding(
            "no_sweep", f"No sweep has ended yet: what 100ms has is not known. {_before_first(summary)}"
        )
    elif summary.sweep_is_late:
        running = summary.sweeping_since is not None
        why = "One is running now, after a long pause." if running else "`archiver doctor` says why."
        yield finding(
            "sweep_is_late",
            f"The last sweep began {_span(summary.at - swept_at)} ago, and one is due every "
            f"{_span(summary.sweep_every)}: what is new at 100ms is not seen. {why}",
        )
    heard = max((at for at in (summary.watched_at, summary.ran_once_at) if at is not None), default=None)
    if summary.watched_at is not None and heard == summary.watched_at and summary.at - heard > SILENCE:
        yield finding(
            "control_is_silent",
            f"The control worker has done nothing for {_span(summary.at - heard)}: it is dead or stuck, or beat is. "
            "`archiver doctor` says which.",
        )
    if summary.idle_since is not None and summary.at - summary.idle_since > SILENCE:
        queued = summary.counts.states.get(AssetState.QUEUED, 0)
        yield finding(
            "workers_are_silent",
            f"{_assets(queued)} queued, and nothing has been copied for {_span(summary.at - summary.idle_since)}: the "
            "archive workers are dead or stuck. `archiver doctor` says which.",
        )


def _before_first(summary: Summary) -> str:
    if summary.sweeping_since is not None:
        return "One is running now: wait for it."
    if summary.watched_at is None and summary.ran_once_at is None:
        return "Nothing has run here yet: start `archiver up` (or the workers and beat), or `archiver run --once`."
    return f"One is due every {_span(summary.sweep_every)}; if none ends, `archiver doctor` says why."


# -- what is saved -------------------------------------------------------------------------------------------
def _saved(counts: Counts, *, known: bool) -> str:
    """`known`: nothing is in doubt. Only then may the headline say that all is safe."""
    of = counts.states.get
    archived = of(AssetState.ARCHIVED, 0)
    unsaved = sum(of(state, 0) for state in UNSAVED_STATES)
    others = [f"{unsaved:,} not saved yet"] if unsaved else []
    others += [f"{number:,} {words}" for state, words in _OTHERS.items() if (number := of(state, 0))]
    if counts.seen == 0:
        return "100ms lists no asset."
    asks_nothing = archived + sum(of(state, 0) for state in _NOT_WANTED) == counts.seen
    if not known or not asks_nothing:
        rest = f"; {', '.join(others)}" if others else ""
        return f"{archived:,} of {counts.seen:,} known assets are archived{rest}."
    if archived < counts.seen:
        return f"All assets that are wanted are safe: {archived:,} archived, {', '.join(others)}."
    return "The only asset is safe." if archived == 1 else f"All {archived:,} assets are safe."


_NOT_WANTED = (
    AssetState.SKIPPED,
    AssetState.EXTERNAL,
    AssetState.REJECTED,
    AssetState.ERASING,  # a finding of its own while it cannot be finished
    AssetState.ERASED,
    AssetState.EXPIRED,
)
_OTHERS = {
    AssetState.LOST: "lost",
    AssetState.DAMAGED: "damaged",
    AssetState.QUARANTINED: "stored with doubts",
    AssetState.SOURCE_FAILED: "failed at 100ms",
    AssetState.REJECTED: "rejected",
    AssetState.EXTERNAL: "in your own bucket already",
    AssetState.SKIPPED: "skipped by your filters",
    AssetState.ERASING: "being erased",
    AssetState.ERASED: "erased",
    AssetState.EXPIRED: "expired",
}


def _notes(summary: Summary) -> Iterator[Finding]:
    counts = summary.counts
    if acknowledged := {state: number for state, number in counts.acknowledged.items() if number}:
        listed = ", ".join(f"{number:,} {state}" for state, number in acknowledged.items())
        yield finding("acknowledged", f"Acknowledged, and not counted as problems: {listed}.")
    yield from (each for each in summary.reported if not each.is_problem)
    if summary.forecast is not None and summary.forecast.assets_left:
        yield finding("forecast", _forecast(summary.forecast))
    if summary.sweeping_since is not None:
        lasted = _span(summary.at - summary.sweeping_since)
        yield finding("sweep_running", f"A sweep has been running for {lasted}.")


def _forecast(found: Forecast) -> str:
    low, likely, high = (_span(timedelta(seconds=seconds)) for seconds in astuple(found.done_in_seconds))
    return (
        f"{_assets(found.assets_left)} ({found.bytes_left / 1e9:,.1f} GB) left to save: done in {likely}, in nine "
        f"cases of ten in {low} to {high}, at {found.bytes_per_second / 1e6:,.1f} MB/s."
    )


def _assets(number: int) -> str:
    return "1 asset" if number == 1 else f"{number:,} assets"


def _span(duration: timedelta) -> str:
    seconds = max(int(duration.total_seconds()), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
