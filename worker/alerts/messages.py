"""Write messages. Plain text: every channel can show it."""

from __future__ import annotations

from collections.abc import Sequence

from archiver.core.alerts import Alert, Message
from archiver.core.health import Health, Summary
from archiver.core.health_rules import RULES, Severity
from archiver.ledger.models import AssetState


def title_of(message: Message) -> str:
    if not message.firing:
        return f"archiver: resolved: {_names(message.resolved)}"
    return f"archiver: {message.severity.value}: {_names(message.firing)}"


def body_of(message: Message) -> str:
    paragraphs = [
        f"{alert.severity.value.upper()} {alert.rule_id}, since {alert.since:%Y-%m-%d %H:%M} UTC\n{alert.text}\n"
        f"What to do: {RULES[alert.rule_id].action}"
        for alert in message.firing
    ]
    paragraphs += [
        f"RESOLVED {alert.rule_id}{f' ({alert.cause})' if alert.cause else ''}, which began "
        f"{alert.since:%Y-%m-%d %H:%M} UTC"
        for alert in message.resolved
    ]
    return "\n\n".join(paragraphs)


def digest(summary: Summary, health: Health, firing: Sequence[Alert]) -> tuple[str, Severity, str]:
    """Title, severity and body of the daily digest."""
    states = summary.counts.states
    counts = ", ".join(
        f"{states[state]:,} {state.value.replace('_', ' ')}" for state in AssetState if states.get(state)
    )
    lines = [health.headline, f"Assets: {counts or 'none'}."]
    lines += health.notes
    lines += [
        f"{alert.severity.value.upper()} {alert.rule_id}, since {alert.since:%Y-%m-%d}: {alert.text}"
        for alert in firing
    ]
    severity = Severity.INFO if health.healthy else Severity.WARNING
    return f"archiver: daily digest, {summary.at:%Y-%m-%d}", severity, "\n".join(lines)


def _names(alerts: Sequence[Alert]) -> str:
    names = dict.fromkeys(alert.rule_id.replace("_", " ") for alert in alerts)
    return ", ".join(names)
