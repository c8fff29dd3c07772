"""Decide which message each channel gets: one per cause and level. Pure.

A finding becomes an alert: one per rule and cause (a destination, a worker), sent once to each channel that wants its
severity, sent again when its level has doubled, or has risen for GROWTH_AFTER, and resolved when the finding has been
gone for RESOLVED_AFTER and there is evidence that it is over (`core.evidence`). The book is kept as a fact in the
ledger, so that a restart or a second process sends nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from archiver.core.health_rules import RULES, Finding, Severity
from archiver.hms.models import parse_time

RESOLVED_AFTER = timedelta(minutes=10)
"""How long a finding must be gone: longer than any circuit breaker waits before it lets a call through, so that a fault
which nobody looked at is not called resolved."""
GROWTH_AFTER = timedelta(hours=6)
"""How long a level that has risen, but not doubled, waits to be sent again: an outage adds ten thousand assets in
some fourteen messages, and of one more asset on the same day."""
RETRY_AFTER = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
"""Pauses after a channel's first, second, ... failed delivery in a row; the last one is repeated."""
FAILING_AFTER = 3
"""Failed deliveries in a row from which on a channel counts as failing."""
MOST_ALERTS = 200
"""Kept at once. More causes than this are one disaster, and reported by the first."""

MOST_WRITERS = 32
"""Processes whose writes a book remembers, the latest ones."""

BOOK_FACT = "alert_book"
LOOKED_AT = "looked_at"
"""In the fact: when the last look for alerts began."""

_ORDER = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)


@dataclass(frozen=True, slots=True)
class Channel:
    """Where alerts go. `name` holds no secret. `lowest`: the lowest severity that it wants."""

    name: str
    lowest: Severity

    @property
    def wants_digest(self) -> bool:
        return self.lowest is not Severity.CRITICAL

    def wants(self, severity: Severity) -> bool:
        return _ORDER.index(severity) >= _ORDER.index(self.lowest)


@dataclass(frozen=True, slots=True)
class Notified:
    level: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Alert:
    """`notified`: by channel, the level it was last notified of. `gone_since`: since when the finding is absent."""

    rule_id: str
    cause: str
    severity: Severity
    text: str
    level: int
    since: datetime
    gone_since: datetime | None = None
    resolved: bool = False
    notified: Mapping[str, Notified] = field(default_factory=dict)

    def is_news(self, channel: str, now: datetime) -> bool:
        """Return whether `channel` does not know how bad it is."""
        notified = self.notified.get(channel)
        if notified is None:
            return True
        doubled = self.level.bit_length() > notified.level.bit_length()
        return doubled or (self.level > notified.level and now - notified.at >= GROWTH_AFTER)

    @property
    def key(self) -> tuple[str, str]:
        return self.rule_id, self.cause


@dataclass(frozen=True, slots=True)
class Delivery:
    """Failed deliveries in a row to one channel. `reason` holds no secret."""

    failures: int
    next_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    """What to send to one channel now. `firing` and `resolved` in the order of their severity, worst first."""

    firing: Sequence[Alert]
    resolved: Sequence[Alert]

    @property
    def severity(self) -> Severity:
        return max((alert.severity for alert in self.firing), key=_ORDER.index, default=Severity.INFO)


@dataclass(frozen=True, slots=True)
class AlertBook:
    """Every alert that fires, or whose resolution some channel has yet to be notified of."""

    alerts: Mapping[tuple[str, str], Alert] = field(default_factory=dict)
    deliveries: Mapping[str, Delivery] = field(default_factory=dict)
    digest_at: datetime | None = None  # the last digest
    revision: int = 0  # grows each time that the book is kept in the ledger
    writes: Mapping[str, int] = field(default_factory=dict)
    """By process, the last of its writes that went into this book; empty in one of an earlier version."""
    ledger_lost_at: datetime | None = None
    """When the ledger was last seen to have lost what it knew: it was flushed, or is older than it was."""

    # -- what is wrong -------------------------------------------------------------------------------------
    def observe(
        self, findings: Iterable[Finding], now: datetime, is_over: Callable[[Alert], bool]
    ) -> AlertBook:
        """Take up the `findings` of a look that could read the ledger. `is_over`: whether there is evidence that an
        alert whose finding is absent is over; until then it fires. Idempotent."""
        found = {(each.id, each.cause): each for each in findings if each.is_problem}
        alerts = {}
        for key, alert in self.alerts.items():
            if alert.rule_id in RULES:
                carried = self._carry_on(alert, found.get(key), now)
                if carried.resolved and not alert.resolved and not is_over(carried):
                    carried = replace(carried, resolved=False)
                alerts[key] = carried
        for key, each in found.items():
            if key not in alerts and len(alerts) < MOST_ALERTS:
                alerts[key] = Alert(each.id, each.cause, each.rule.severity, each.text, each.level, now)
        return replace(self, alerts=_without_settled(alerts))

    def resolve(self, rule_id: str, cause: str | None = None) -> AlertBook:
        """Resolve the alerts of a rule, or of one cause, whose finding is absent, because a person says that it is
        over. What is still found fires on. Idempotent."""
        chosen = {
            key: replace(alert, resolved=True)
            for key, alert in self.alerts.items()
            if alert.rule_id == rule_id and cause in (None, alert.cause) and alert.gone_since is not None
        }
        return replace(self, alerts=_without_settled({**self.alerts, **chosen}), revision=self.revision + 1)

    def add(self, finding: Finding, now: datetime) -> AlertBook:
        """Take up one finding of a look that could see nothing else: what fires goes on firing."""
        key = (finding.id, finding.cause)
        alert = self.alerts.get(key) or Alert(
            finding.id, finding.cause, finding.rule.severity, finding.text, finding.level, now
        )
        return replace(self, alerts={**self.alerts, key: self._carry_on(alert, finding, now)})

    @staticmethod
    def _carry_on(alert: Alert, finding: Finding | None, now: datetime) -> Alert:
        if finding is None:
            since = min(alert.gone_since or now, now)  # the ledger's clock may have been set back
            return replace(alert, gone_since=since, resolved=alert.resolved or now - since >= RESOLVED_AFTER)
        if alert.resolved:  # it came back before every channel was notified of its end
            alert = replace(alert, since=now, resolved=False)
        notified = {
            name: replace(each, level=min(each.level, finding.level)) for name, each in alert.notified.items()
        }
        return replace(alert, text=finding.text, level=finding.level, gone_since=None, notified=notified)

    # -- who is to be notified -----------------------------------------------------------------------------
    def message(self, channel: Channel, now: datetime) -> Message | None:
        """What `channel` has not been notified of yet; None: nothing, or its last delivery failed a moment ago."""
        delivery = self.deliveries.get(channel.name)
        # one that is further away was timed by a machine whose clock is wrong, while the ledger was down
        if delivery is not None and now < delivery.next_at <= now + RETRY_AFTER[-1]:
            return None
        wanted = [alert for alert in self.alerts.values() if channel.wants(alert.severity)]
        wanted.sort(key=lambda alert: (-_ORDER.index(alert.severity), alert.since, alert.key))
        firing = [
            alert
            for alert in wanted
            if not alert.resolved
            and alert.gone_since is None
            and now - alert.since >= RULES[alert.rule_id].alert_after
            and alert.is_news(channel.name, now)
        ]
        resolved = [alert for alert in wanted if alert.resolved and channel.name in alert.notified]
        return Message(firing, resolved) if firing or resolved else None

    def delivered(self, channel: Channel, message: Message, now: datetime) -> AlertBook:
        """Record that `channel` has been notified."""
        alerts = dict(self.alerts)
        for alert in message.firing:
            if (kept := alerts.get(alert.key)) is not None:
                notified = {**kept.notified, channel.name: Notified(alert.level, now)}
                alerts[alert.key] = replace(kept, notified=notified)
        for alert in message.resolved:
            if (kept := alerts.get(alert.key)) is not None:
                notified = {name: each for name, each in kept.notified.items() if name != channel.name}
                alerts[alert.key] = replace(kept, notified=notified)
        deliveries = {name: each for name, each in self.deliveries.items() if name != channel.name}
        return replace(self, alerts=_without_settled(alerts), deliveries=deliveries)

    def failed(self, channel: Channel, reason: str, now: datetime) -> AlertBook:
        """Record that a delivery to `channel` failed: it is retried after a pause."""
        before = self.deliveries.get(channel.name)
        failures = 1 if before is None else before.failures + 1
        pause = RETRY_AFTER[min(failures, len(RETRY_AFTER)) - 1]
        delivery = Delivery(failures, now + pause, reason)
        return replace(self, deliveries={**self.deliveries, channel.name: delivery})

    @property
    def failing_channels(self) -> Mapping[str, Delivery]:
        return {name: each for name, each in self.deliveries.items() if each.failures >= FAILING_AFTER}

    def firing(self) -> Sequence[Alert]:
        """Return what fires, worst first."""
        alerts = [alert for alert in self.alerts.values() if not alert.resolved]
        return sorted(alerts, key=lambda alert: (-_ORDER.index(alert.severity), alert.since, alert.key))

    def only(self, channels: Iterable[Channel]) -> AlertBook:
        """Without channels that are configured no more: nobody waits for them."""
        names = {channel.name for channel in channels}
        alerts = {
            key: replace(
                alert, notified={name: each for name, each in alert.notified.items() if name in names}
            )
            for key, alert in self.alerts.items()
        }
        deliveries = {name: each for name, each in self.deliveries.items() if name in names}
        return replace(self, alerts=_without_settled(alerts), deliveries=deliveries)

    def merge(self, other: AlertBook) -> AlertBook:
        """Join two books, such as one in memory and one in a ledger that was unreachable. Nothing is sent twice. Not
        for an older book of the same ledger: what was resolved since would fire again, and hide that it does."""
        alerts = dict(other.alerts)
        for key, alert in self.alerts.items():
            theirs = alerts.get(key)
            notified = dict(theirs.notified) if theirs is not None else {}
            for name, each in alert.notified.items():
                known = notified.get(name, each)
                notified[name] = Notified(max(each.level, known.level), max(each.at, known.at))
            alerts[key] = replace(theirs or alert, notified=notified)
        digests = [at for at in (self.digest_at, other.digest_at) if at is not None]
        losses = [at for at in (self.ledger_lost_at, other.ledger_lost_at) if at is not None]
        return AlertBook(
            alerts,
            {**self.deliveries, **other.deliveries},
            max(digests) if digests else None,
            max(self.revision, other.revision),
            {**self.writes, **{name: max(n, self.writes.get(name, n)) for name, n in other.writes.items()}},
            max(losses) if losses else None,
        )

    def after_loss(self, now: datetime) -> AlertBook:
        """The ledger lacks what this book had: what is absent from it now may not be over."""
        return replace(self, ledger_lost_at=now)

    # -- the daily digest ----------------------------------------------------------------------------------
    def digest_is_due(self, now: datetime, hour: int) -> bool:
        """Whether the digest of today (UTC) is due: at `hour`, or later when nobody was there. Not on the first day,
        when there is nothing to tell yet: see `with_digest`."""
        today = now.replace(hour=hour, minute=0, second=0, microsecond=0)
        return now >= today and self.digest_at is not None and self.digest_at < today

    def with_digest(self, now: datetime) -> AlertBook:
        return replace(self, digest_at=now)

    def written_by(self, writer: str, number: int) -> AlertBook:
        """As the process `writer` keeps it for the `number`th time."""
        others = {name: each for name, each in self.writes.items() if name != writer}
        latest = list(others.items())[-(MOST_WRITERS - 1) :]
        return replace(self, writes={**dict(latest), writer: number})

    # -- as a fact in the ledger -----------------------------------------------------------------------------
    def as_fact(self) -> dict[str, object]:
        return {
            "alerts": [
                {
                    "rule": alert.rule_id,
                    "cause": alert.cause,
                    "text": alert.text,
                    "level": alert.level,
                    "since": alert.since.isoformat(),
                    "gone_since": alert.gone_since.isoformat() if alert.gone_since else None,
                    "resolved": alert.resolved,
                    "told": {
                        name: {"level": each.level, "at": each.at.isoformat()}
                        for name, each in alert.notified.items()
                    },
                }
                for alert in self.alerts.values()
            ],
            "deliveries": {
                name: {"failures": each.failures, "next_at": each.next_at.isoformat(), "reason": each.reason}
                for name, each in self.deliveries.items()
            },
            "digest_at": self.digest_at.isoformat() if self.digest_at else None,
            "revision": self.revision,
            "writes": [[name, number] for name, number in self.writes.items()],  # in this order
            "ledger_lost_at": self.ledger_lost_at.isoformat() if self.ledger_lost_at else None,
        }

    @classmethod
    def from_fact(cls, fact: Mapping[str, object] | None) -> AlertBook:
        """Read what `as_fact` wrote. What cannot be read is left out: it is sent again rather than never."""
        if fact is None:
            return cls()
        entries, deliveries = fact.get("alerts"), fact.get("deliveries")
        revision = fact.get("revision")
        alerts = (_read_alert(entry) for entry in entries) if isinstance(entries, list) else ()
        return cls(
            {alert.key: alert for alert in alerts if alert is not None},
            {
                str(name): read
                for name, each in (deliveries.items() if isinstance(deliveries, Mapping) else ())
                if (read := _read_delivery(each)) is not None
            },
            parse_time(fact.get("digest_at")),
            revision if isinstance(revision, int) else 0,
            _read_writes(fact.get("writes")),
            parse_time(fact.get("ledger_lost_at")),
        )


def _without_settled(alerts: Mapping[tuple[str, str], Alert]) -> dict[tuple[str, str], Alert]:
    """Without what is resolved once every channel that was notified of it knows that."""
    return {key: alert for key, alert in alerts.items() if not alert.resolved or alert.notified}


def _read_alert(entry: object) -> Alert | None:
    match entry:
        case {
            "rule": str(rule_id),
            "cause": str(cause),
            "text": str(text),
            "level": int(level),
            "since": since,
            "gone_since": gone_since,
            "resolved": bool(resolved),
            "told": dict(notified),
        } if rule_id in RULES and (began := parse_time(since)) is not None:
            known = {
                str(name): Notified(each["level"], at)
                for name, each in notified.items()
                if (at := parse_time(each.get("at"))) is not None and isinstance(each.get("level"), int)
            }
            severity = RULES[rule_id].severity
            return Alert(
                rule_id, cause, severity, text, level, began, parse_time(gone_since), resolved, known
            )
    return None


def _read_writes(entries: object) -> dict[str, int]:
    found = entries if isinstance(entries, list) else []
    return {
        str(each[0]): each[1]
        for each in found
        if isinstance(each, list) and len(each) == 2 and isinstance(each[1], int)
    }


def _read_delivery(entry: object) -> Delivery | None:
    match entry:
        case {"failures": int(failures), "next_at": next_at, "reason": str(reason)} if (
            at := parse_time(next_at)
        ) is not None:
            return Delivery(failures, at, reason)
    return None
