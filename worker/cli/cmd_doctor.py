"""`archiver doctor`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from worker.cli.opening import open_services
from worker.cli.shared import ExitCode, Json, out, print_json, read_settings
from worker.doctor.check_result import CheckResult, Verdict
from worker.views.text import shown

if TYPE_CHECKING:
    from worker.settings import Settings


FINDING_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}


def doctor(as_json: Json = False) -> None:
    """Check everything the archiver depends on, and print how to fix each problem.

    Certificates, credentials and clock, a source (the first bytes of one recording), broker and its persistence, beat
    and workers, and each destination (write, read back, checksum, delete, conditional write, rule for unfinished
    uploads). Leaves nothing behind.

    Examples:
      archiver doctor
    """
    from worker.bootstrap import build_scope
    from worker.doctor.examine import examine

    settings = read_settings()
    findings = []
    with open_services(settings, check_broker=False) as services:
        for finding in examine(
            settings,
            api=services.api,
            ledger=services.ledger,
            destinations=services.stores,
            identities=services.identities,
            workers=lambda: _ping_workers(settings),
            scope=build_scope(settings),
            open_contents=services.open_contents,
        ):
            findings.append(finding)
            if not as_json:
                out.print(finding_view(finding))
    if as_json:
        print_json(json.dumps([{n: getattr(finding, n) for n in finding.__slots__} for finding in findings]))
    has_problem = any(finding.verdict is Verdict.PROBLEM for finding in findings)
    sys.exit(ExitCode.NOT_SAVED if has_problem else ExitCode.OK)


def _ping_workers(settings: Settings) -> list[str]:
    """The names of the workers that answer over the broker within two seconds."""
    from celery import Celery

    from worker.broker import broker_url
    from worker.celery_setup.config import celery_settings

    with broker_url(settings) as url, Celery(set_as_current=False) as client:
        client.conf.update(
            celery_settings(broker_url=url, key_prefix=settings.redis_key_prefix, concurrency=1)
        )
        answers = client.control.ping(timeout=2) or []
    return sorted(name for answer in answers for name in answer)


def finding_view(finding: CheckResult) -> RenderableType:
    """One line, and below it how to fix the problem."""
    detail = finding.detail.removeprefix(f"{finding.subject}: ")
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=7)
    table.add_column(overflow="fold")
    table.add_row(
        Text(finding.verdict, style=FINDING_STYLES[finding.verdict]),
        shown(f"{finding.subject}: {detail}"),
    )
    if finding.remedy:
        table.add_row("", shown(f"→ {finding.remedy}", "dim"))
    return table
