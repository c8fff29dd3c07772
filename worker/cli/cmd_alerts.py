"""`archiver alerts`."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from worker.cli.opening import open_ledger
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings
from worker.logs.escaping import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archiver.core.alerts import Alert
    from worker.settings import Settings


class Action(StrEnum):
    TEST = "test"
    RESOLVE = "resolve"


def alerts(
    action: Annotated[
        Action | None,
        typer.Argument(
            metavar="test|resolve",
            help="`test`: send a message to each channel. `resolve`: end the alerts of RULE.",
        ),
    ] = None,
    rule: Annotated[
        str | None, typer.Argument(metavar="RULE", help="With `resolve`: the alert, such as drill_is_late.")
    ] = None,
    cause: Annotated[
        str | None,
        typer.Option("--cause", help="With `resolve`: of which destination or machine.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the alerts that fire and the channels that had them; with `test`, send a test message to every channel of
    ARCHIVER_ALERT_URLS.

    An alert is resolved by itself once what it is about was looked at again. `resolve` is for one that nobody looks at
    any more, such as a drill that was turned off: it ends what is not found any more, and the channels are told.

    Exit code 1 when an alert fires, when a channel does not take the test, or when `resolve` leaves an alert of RULE.

    Examples:
      archiver alerts
      archiver alerts test
      archiver alerts resolve drill_is_late
      archiver alerts resolve disk_nearly_full --cause old-host
    """
    if (action is Action.RESOLVE) != (rule is not None) or (cause is not None and rule is None):
        raise typer.BadParameter(
            "RULE belongs to `resolve`, and --cause to a RULE: `archiver alerts resolve RULE`"
        )
    settings = read_settings()
    if action is Action.TEST:
        _test(settings)
        return
    if rule is not None:
        _resolve(settings, rule, cause)
        return
    from archiver.core.alerts import BOOK_FACT, AlertBook

    with open_ledger(settings) as ledger:
        firing = AlertBook.from_fact(ledger.recall(BOOK_FACT)).firing()
    if as_json:
        print_json(json.dumps([_json(alert) for alert in firing]))
    elif firing:
        out.print(_table(firing))
    else:
        out.print("No alert fires.")
    if not settings.alert_urls:
        err.print("ARCHIVER_ALERT_URLS is not set: alerts are only logged.", style="yellow")
    sys.exit(ExitCode.NOT_SAVED if firing else ExitCode.OK)


def _test(settings: Settings) -> None:
    from archiver.core.health_rules import Severity
    from worker.alerts.channels import DeliveryFailed, open_channels
    from worker.errors import SettingsError

    if not settings.alert_urls:
        raise SettingsError("ARCHIVER_ALERT_URLS is not set: there is no channel to test.")
    failed = False
    for each in open_channels(settings.channels):
        try:
            each.send(
                "archiver: test",
                "This is a test of the recording archiver's alerts. Nothing is wrong.",
                Severity.INFO,
            )
        except DeliveryFailed as error:
            failed = True
            out.print(Text(f"✗ {each.channel.name}: {error}", style="red"))
        else:
            out.print(Text(f"✓ {each.channel.name}: delivered", style="green"))
    sys.exit(ExitCode.NOT_SAVED if failed else ExitCode.OK)


def _resolve(settings: Settings, rule: str, cause: str | None) -> None:
    from archiver.core.health_rules import RULES
    from worker.alerts.alerter import LookIsRunning, resolve

    if rule not in RULES:
        raise typer.BadParameter(
            f"there is no alert {rule!r}: `archiver alerts` lists what fires", param_hint="RULE"
        )
    with open_ledger(settings) as ledger:
        try:
            book = resolve(ledger, rule, cause)
        except LookIsRunning:
            err.print("Alerts are being looked at just now. Nothing was done; try again in a minute.")
            sys.exit(ExitCode.NOT_SAVED)
    left = [alert for alert in book.firing() if alert.rule_id == rule and cause in (None, alert.cause)]
    for alert in left:
        out.print(Text(f"Still found, so it fires on: {escaped(alert.text)}"))
    if not left:
        of = f" of {escaped(cause)}" if cause else ""
        out.print(Text(f"No alert {rule}{of} fires. Channels that had one are told at the next look."))
    sys.exit(ExitCode.NOT_SAVED if left else ExitCode.OK)


def _table(firing: Sequence[Alert]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("severity", "alert", "since (UTC)", "sent to", "what"):
        table.add_column(name, overflow="fold")  # a setting's name must not lose its end
    for alert in firing:
        notified = ", ".join(sorted(alert.notified)) or "nobody"
        text = Text(escaped(alert.text))
        if alert.gone_since is not None:
            text.append(
                f" (Not found since {alert.gone_since:%Y-%m-%d %H:%M}; it fires until it is known to be over.)"
            )
        table.add_row(alert.severity.value, alert.rule_id, f"{alert.since:%Y-%m-%d %H:%M}", notified, text)
    return table


def _json(alert: Alert) -> dict[str, object]:
    return {
        "rule": alert.rule_id,
        "cause": alert.cause,
        "severity": alert.severity.value,
        "since": alert.since.isoformat(),
        "gone_since": alert.gone_since.isoformat() if alert.gone_since else None,
        "text": alert.text,
        "told": sorted(alert.notified),
    }
