"""`archiver init`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storage_backends.errors import BadDestinationUrl
from worker.cli.shared import ExitCode, err, out
from worker.doctor.check_result import CheckResult, Verdict
from worker.errors import SettingsError

if TYPE_CHECKING:
    from worker.settings import Settings

ACCESS_KEY, SECRET = "HMS_ACCESS_KEY", "HMS_SECRET"
DESTINATIONS, ALERTS, HEARTBEAT = "ARCHIVER_DESTINATIONS", "ARCHIVER_ALERT_URLS", "ARCHIVER_HEARTBEAT_URL"
_HIDDEN = (SECRET, ALERTS, HEARTBEAT)
_FILE = Path(".env")
NEXT = "Next: `archiver run --once` archives everything once; `archiver up` keeps on."

Check = Callable[["Settings"], Iterator[CheckResult]]


def init(
    access_key: Annotated[
        str | None, typer.Option("--access-key", help="The app access key of 100ms.", show_default=False)
    ] = None,
    destination: Annotated[
        str | None,
        typer.Option(
            "--destination", help="Where to archive, such as s3://bucket/prefix.", show_default=False
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--yes", help="Replace what .env has, without asking.")] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Write the answers without testing them.")
    ] = False,
) -> None:
    """Ask for what the archiver needs, test each answer as `doctor` does, and write it to .env.

    Other lines of .env stay; the file gets mode 0600. Secrets are never options: without a terminal HMS_SECRET,
    ARCHIVER_ALERT_URLS and ARCHIVER_HEARTBEAT_URL are taken from the environment. What does not pass its test is not
    written unless you say so.

    Examples:
      archiver init
      HMS_SECRET=... archiver init --access-key KEY --destination s3://bucket/prefix --yes
    """
    given = {ACCESS_KEY: access_key, DESTINATIONS: destination}
    dialog = _Dialog(
        interactive=sys.stdin.isatty() and sys.stdout.isatty(),
        checking=not no_check,
        in_file=_read(_FILE),
        given={name: value for name, value in given.items() if value},
    )
    try:
        dialog.ask({ACCESS_KEY: "100ms access key", SECRET: "100ms app secret"}, _check_api)
        dialog.ask({DESTINATIONS: "Destination, such as s3://bucket/prefix"}, _check_destinations)
        dialog.ask({ALERTS: "Alert URL, such as slack://... (optional)"}, _check_alerts, optional=True)
        dialog.ask({HEARTBEAT: "Heartbeat URL (optional)"}, _check_heartbeat, optional=True)
        dialog.confirm_replacing(replace)
    except typer.Abort:
        err.print("\nNothing was written.")
        sys.exit(ExitCode.INTERRUPTED)
    _write(_FILE, dialog.answers)
    out.print(f"Wrote {', '.join(dialog.answers)} to {_FILE}, which only you can read.")
    for name in dialog.answers.keys() & dialog.outside.keys():
        if dialog.answers[name] != dialog.outside[name]:
            err.print(f"{name} is set in the environment too, and that value wins over .env.", style="yellow")
    out.print(NEXT)


@dataclass
class _Dialog:
    """Asks, or without a terminal takes what is given. `in_file`: what `.env` has already."""

    interactive: bool
    checking: bool
    in_file: dict[str, str]
    given: dict[str, str]
    answers: dict[str, str] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)  # typed, and not accepted; no secrets
    outside: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def ask(self, questions: dict[str, str], check: Check, *, optional: bool = False) -> None:
        """Ask until the answers pass `check`, or a person wants them all the same. Raises SettingsError and exits
        without a terminal."""
        first = True
        while True:
            found = {name: self._answer(name, text, optional, first) for name, text in questions.items()}
            found = {name: value for name, value in found.items() if value}
            if not found:
                return
            if self._passes(found, check):
                self.answers |= found
                return
            first = False

    def confirm_replacing(self, replace: bool) -> None:
        """Raises SettingsError without a terminal, typer.Abort for a no."""
        changed = [name for name, value in self.answers.items() if self.in_file.get(name, value) != value]
        if not changed or replace:
            return
        if not self.interactive:
            raise SettingsError(
                f"{_FILE} has another {', '.join(changed)}; --yes replaces it. Nothing was written."
            )
        typer.confirm(f"Replace {', '.join(changed)} in {_FILE}?", abort=True)

    def _answer(self, name: str, text: str, optional: bool, first: bool) -> str:
        known = (
            self.last.get(name)
            or self.given.get(name)
            or self.outside.get(name, "").strip()
            or self.in_file.get(name, "")
        )
        if not self.interactive:
            if known or optional:
                return known
            way = (
                f"set {name}"
                if name == SECRET
                else f"give --{'access-key' if name == ACCESS_KEY else 'destination'}"
            )
            raise SettingsError(
                f"{name}: is missing, and there is no terminal to ask on; {way}. Nothing was written."
            )
        if first and name in self.given:
            return known
        hidden = name in _HIDDEN
        if known and hidden:
            text += " [Enter keeps the one that is set]"
        default = known or ("" if optional else None)
        answer: str = typer.prompt(
            text, default=default, hide_input=hidden, show_default=bool(known) and not hidden
        )
        if not hidden:
            self.last[name] = answer.strip()
        return answer.strip()

    def _passes(self, found: dict[str, str], check: Check) -> bool:
        from worker.logs.redaction import remember_secrets, secrets_of
        from worker.settings import load_settings

        os.environ.update(found)
        try:
            settings = load_settings(_FILE)
            remember_secrets(secrets_of(settings))
            findings = list(check(settings)) if self.checking else []
        except (SettingsError, BadDestinationUrl) as error:
            self._refuse(error, found)
            return False
        for finding in findings:
            _print(finding)
        if all(finding.verdict is not Verdict.PROBLEM for finding in findings):
            return True
        if not self.interactive:
            err.print("Nothing was written. --no-check writes it untested.", style="red")
            sys.exit(ExitCode.UNREACHABLE)
        return typer.confirm("Use it all the same?", default=False)

    def _refuse(self, error: Exception, found: dict[str, str]) -> None:
        for name in found:
            os.environ.pop(name, None)
            if name in self.outside:
                os.environ[name] = self.outside[name]
        if not self.interactive:
            raise error
        _print(CheckResult("settings", Verdict.PROBLEM, str(error)))


def _check_api(settings: Settings) -> Iterator[CheckResult]:
    from archiver.hms.client import HmsClient
    from archiver.http import trust
    from worker.doctor.api import check_api
    from worker.tokens import token_provider

    authorities = trust.authorities(settings.ca_file)
    with closing(HmsClient(settings.hms_api_url, token_provider(settings), authorities=authorities)) as api:
        yield from check_api(settings, api)


def _check_destinations(settings: Settings) -> Iterator[CheckResult]:
    from storage_backends.registry import open_destinations
    from worker.doctor.destinations import check_destination

    for store in open_destinations(settings.destinations):
        with closing(store):
            yield from check_destination(store)


def _check_alerts(settings: Settings) -> Iterator[CheckResult]:
    from archiver.core.health_rules import Severity
    from worker.alerts.channels import DeliveryFailed, open_channels

    for each in open_channels(settings.channels):
        subject = f"alerts to {each.channel.name}"
        try:
            each.send("archiver: test", "This is a test of the recording archiver's alerts.", Severity.INFO)
        except DeliveryFailed as error:
            yield CheckResult(
                subject, Verdict.PROBLEM, str(error), "Compare the URL with Apprise's page on the service."
            )
        else:
            yield CheckResult(subject, Verdict.OK, "a test message was delivered")


def _check_heartbeat(settings: Settings) -> Iterator[CheckResult]:
    from archiver.http import trust
    from worker.alerts.dead_mans_switch import DeadMansSwitch

    failure = DeadMansSwitch(settings.heartbeat_url, trust.authorities(settings.ca_file)).test()
    if failure is None:
        yield CheckResult("heartbeat", Verdict.OK, "was called, and answered")
    else:
        yield CheckResult("heartbeat", Verdict.PROBLEM, failure, "Copy the ping URL again.")


def _print(finding: CheckResult) -> None:
    from worker.cli.cmd_doctor import finding_view
    from worker.logs.redaction import redact

    detail = redact(finding.detail)
    out.print(finding_view(CheckResult(redact(finding.subject), finding.verdict, detail, finding.remedy)))


def _read(file: Path) -> dict[str, str]:
    """Raises SettingsError."""
    from dotenv import dotenv_values

    try:
        found = dotenv_values(file, encoding="utf-8-sig") if file.exists() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from None
    return {name: value for name, value in found.items() if value}


def _write(file: Path, answers: dict[str, str]) -> None:
    """Replace `file` atomically; it has every other line as before, and mode 0600. Raises SettingsError."""
    from dotenv import set_key

    from worker.embedded.valkey import write_private

    target = file.resolve()  # a link stays one
    scratch = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        write_private(scratch, target.read_text(encoding="utf-8-sig") if target.exists() else "")
        for name, value in answers.items():
            set_key(scratch, name, value)
        scratch.chmod(0o600)
        scratch.replace(target)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise SettingsError(f"{file} cannot be written: {error.strerror}") from None
