"""People who are told: the real alert loop as a process, channels that fail, and what must hold of each message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from archiver.core.alerts import GROWTH_AFTER, Alert, Channel, Message
from archiver.core.deadlines import alarm_level
from archiver.core.health_rules import Severity
from archiver.ledger.models import OPEN_STATES, AssetState, Row
from tests.simulation.faults import Faults
from tests.simulation.ledgers import AuditedLedger
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import DAY, HOUR, START, Process
from tests.simulation.stores import Destination
from tests.simulation.wiring import AT_RISK, SWEEP_EVERY
from worker.alerts.alerter import LOCK_TTL
from worker.alerts.channels import DeliveryFailed, OpenChannel

CHANNELS = (Channel("team", Severity.WARNING), Channel("pager", Severity.CRITICAL))
LOOK_EVERY = 2 * HOUR
GOES_UNSEEN = 3 * LOOK_EVERY
"""What has been so for less long may have begun after the look that a message is about."""
LONGEST_LOOK = 1.3 * LOOK_EVERY
KNOWN_WITHIN = 2 * HOUR + LONGEST_LOOK + GROWTH_AFTER.total_seconds()
"""A watch counts what is at risk; a look finds it; a level that has not doubled waits."""
KNOWN_IN_CALM = 12 * HOUR + 3 * LONGEST_LOOK + GROWTH_AFTER.total_seconds()
"""The same after the storm, where watches are up to 12 hours apart, and looks three times as rare."""

_ENDS = {
    "lost": AssetState.LOST,
    "damaged": AssetState.DAMAGED,
    "quarantined": AssetState.QUARANTINED,
    "needs_source_access": AssetState.NEEDS_SOURCE_ACCESS,
    "source_failed": AssetState.SOURCE_FAILED,
}


@dataclass
class Told:
    level: int
    at: float
    process: Process
    life: int
    epoch: int
    recorded: bool = False  # in the ledger, so that every process knows


@dataclass
class AlertOracle:
    """Hears every message, and knows what is true."""

    oracle: Oracle
    ledger: AuditedLedger
    faults: Faults
    destinations: list[Destination]
    messages: int = 0
    _told: dict[tuple[str, str, str], Told] = field(default_factory=dict)  # by channel, rule and cause
    _unsaved_since: dict[str, float] = field(default_factory=dict)  # by asset
    _covered: dict[str, list[float]] = field(default_factory=dict)  # when "team" was told of it, by asset
    _since: dict[tuple[str, str], float] = field(default_factory=dict)  # what is true, and since when
    _forgotten: set[tuple[str, str]] = field(
        default_factory=set
    )  # ends that were true when the ledger lost them

    # -- what is true ------------------------------------------------------------------------------------------
    def sample(self) -> None:
        """Look at the account from outside, several times between two looks of the fleet."""
        now = self.oracle.scheduler.seconds
        if self.oracle.compared_from > self.oracle.epoch_began:
            self._forgotten.clear()
        true = self._forgotten.union(self._true_now())
        self._since = {key: self._since.get(key, now) for key in true}
        unsaved = [row.asset_id for row in self.ledger.all_rows() if _is_unsaved(row)]
        self._unsaved_since = {each: self._unsaved_since.get(each, now) for each in unsaved}

    def ledger_is_lost(self) -> None:
        """Just before that. Until a reconcile has begun and ended since, nobody knows that what had ended is over."""
        self.sample()
        self._forgotten |= {key for key in self._since if key[0] in _ENDS}

    def _true_now(self) -> list[tuple[str, str]]:
        ledger, oracle, now = self.ledger, self.oracle, self.oracle.scheduler.seconds
        rows = ledger.all_rows()
        ends = {row.state for row in rows if row.acknowledged is None}
        found = [(rule, "") for rule, state in _ENDS.items() if state in ends]
        levels = [self._level(row) for row in rows if _is_unsaved(row)]
        found += [("at_risk", level) for level in levels if level]
        found += [("destination_unknown", store.name) for store in self.destinations if not store.mounted]
        if oracle.swept_at is not None and now - oracle.swept_at > 5 * SWEEP_EVERY:
            found.append(("sweep_is_late", ""))
        if now - oracle.reconciled_at > DAY:
            found.append(("reconcile_is_late", ""))
        if oracle.met.get("api rows") == oracle.epoch:
            found.append(("assets_without_id", ""))
        return found

    def _level(self, row: Row) -> str | None:
        now = self.ledger.now()
        level = alarm_level(row.expires_at, now) if row.expires_at - now < AT_RISK else None
        return f"{level.days} d" if level else None

    # -- what is told ------------------------------------------------------------------------------------------
    def heard(self, process: Process, channel: str, message: Message, *, is_late: bool) -> None:
        """The channel has taken it. `is_late`: it was sent in time, and the lock ended while it was on its way, so that
        nobody could know what the others sent meanwhile."""
        self.messages += 1
        now = self.oracle.scheduler.seconds
        is_blind = process.is_blind
        for alert in message.firing:
            if not is_late:
                self._check_news(process, channel, alert, is_blind=is_blind)
            key = (channel, *alert.key)
            self._told[key] = Told(alert.level, now, process, process.lives, self.oracle.epoch)
            if alert.rule_id == "at_risk" and channel == "team":
                for row in self.ledger.all_rows():
                    if _is_unsaved(row) and self._level(row) == alert.cause:
                        self._covered.setdefault(row.asset_id, []).append(now)
        self.sample()  # so that what has ended since counts from now
        for alert in message.resolved:
            self._told.pop((channel, *alert.key), None)
            since = self._since.get(alert.key)
            decided_since = not is_late and now - self.oracle.epoch_began > LOCK_TTL.total_seconds()
            if alert.key in self._forgotten and decided_since:
                self._broken("no resolved note for what is not known", f"{alert.key}")
            if since is not None and now - since > GOES_UNSEEN and self._sees(process, since):
                self._broken("no resolved note for what is not resolved", f"{alert.key} since {since:.0f}")

    def _check_news(self, process: Process, channel: str, alert: Alert, *, is_blind: bool) -> None:
        """`is_blind`: without the ledger each process goes by what it knew."""
        last = self._told.get((channel, *alert.key))
        if last is None:
            return
        is_ours = last.process is process and last.life == process.lives
        is_shared = last.recorded and last.epoch == self.oracle.epoch and not is_blind
        known = is_ours or is_shared
        grown = alert.level > last.level
        waited = self.oracle.scheduler.seconds - last.at > GROWTH_AFTER.total_seconds() - 60
        doubled = alert.level.bit_length() > last.level.bit_length()
        if known and not (doubled or (grown and waited)):
            self._broken(
                "one alert for each cause and level", f"{channel}: {alert.key} at {last.level}, {alert.level}"
            )

    def never_knew(self, process: Process) -> None:
        """The channel took its last message, and it may send that again."""
        now = self.oracle.scheduler.seconds
        for key, told in list(self._told.items()):
            if told.process is process and told.at == now:
                del self._told[key]

    def not_recorded(self, process: Process) -> None:
        """It was paused for longer than its lock: it goes by the book that another one has kept, and what it sent may
        be sent again."""
        for key, told in list(self._told.items()):
            if told.process is process and not told.recorded:
                del self._told[key]

    def recorded(self, process: Process, fact: Any) -> None:
        """The book is in the ledger."""
        levels = {(each["rule"], each["cause"]): each["level"] for each in fact["alerts"]}
        for (_, *key), told in self._told.items():
            told.recorded |= told.process is process and told.life == process.lives
            told.level = min(told.level, levels.get((key[0], key[1]), told.level))

    def _sees(self, process: Process, since: float) -> bool:
        """Whether nothing kept it from seeing that for longer than a process may be paused."""
        away = self.faults.windows("ledger")
        return process.awake_seconds_since(since) > GOES_UNSEEN and not any(
            start < self.oracle.scheduler.seconds and end > since for start, end in away
        )

    # -- who was told of what is not saved ---------------------------------------------------------------------
    def lost(self, row: Row) -> None:
        """It ended unsaved: somebody must have been told a day before its deadline, or soon after it was known."""
        deadline = (row.expires_at - START).total_seconds()
        at_risk_from = deadline - AT_RISK.total_seconds()
        now = self.oracle.scheduler.seconds
        from_when = max(self._unsaved_since.get(row.asset_id, now), self.oracle.epoch_began, at_risk_from)
        is_calm = from_when + KNOWN_WITHIN > self.oracle.calm_from
        by = max(deadline - DAY, from_when + (KNOWN_IN_CALM if is_calm else KNOWN_WITHIN))
        if self._is_hindered(from_when, by) or by > now:
            return
        if not any(at <= by for at in self._covered.get(row.asset_id, ())):
            self._broken(
                "what is not saved was told of in time",
                f"{row.asset_id}, between {from_when:.0f} and {by:.0f}",
            )

    def _is_hindered(self, start: float, end: float) -> bool:
        windows = self.faults.windows("ledger", "channel:team")
        return any(begin < end and finish > start - KNOWN_WITHIN for begin, finish in windows)

    def _broken(self, name: str, details: str) -> None:
        self.oracle.scheduler.broken(name, details)


def _is_unsaved(row: Row) -> bool:
    return row.state in OPEN_STATES and row.stored_objects == 0


def open_channels(
    process: Process, faults: Faults, alerts: AlertOracle, told: Callable[[], Message | None]
) -> list[OpenChannel]:
    """`told`: the message whose text is being sent."""

    def opened(channel: Channel) -> OpenChannel:
        def send(_title: str, _body: str, _severity: Severity) -> None:
            message = told()
            sent_at = process.scheduler.seconds

            def act() -> None:
                if faults.active(f"channel:{channel.name}", process.scheduler.seconds):
                    raise DeliveryFailed("503")
                if message is not None:
                    lock_ends = process.locked_at + LOCK_TTL.total_seconds()
                    is_late = sent_at < lock_ends < process.scheduler.seconds
                    alerts.heard(process, channel.name, message, is_late=is_late)

            def lost() -> DeliveryFailed:
                alerts.never_knew(process)
                return DeliveryFailed("no answer")

            process.call(f"channel {channel.name}", act, lost)

        return OpenChannel(channel, send)

    return [opened(channel) for channel in CHANNELS]
