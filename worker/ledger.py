"""Build the ledger and the watcher alone, for commands that copy nothing and must start fast."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator

from pydantic import SecretStr

from archiver.core.health import not_compared
from archiver.core.health_rules import Finding
from archiver.core.upkeep.alert_loop import alert_loop_findings
from archiver.core.upkeep.statement_report import expect_statements, statement_findings
from archiver.core.upkeep.watch import Watcher
from archiver.http import trust
from archiver.ledger.base import Ledger
from archiver.ledger.clock import LedgerClock
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from storage_backends.destination_url import parse_destination
from worker.embedded.valkey import write_private
from worker.local_findings import local_findings
from worker.settings import Settings


def build_ledger(settings: Settings, redis_url: str) -> RedisLedger:
    """Build the ledger. Connects to nothing yet."""
    return RedisLedger(
        redis_url,
        Seal(_seal_secret(settings)),
        key_prefix=settings.redis_key_prefix,
        authorities=trust.authorities(settings.ca_file),
    )


def build_watcher(settings: Settings, ledger: Ledger) -> Watcher:
    return Watcher(
        ledger=ledger,
        clock=LedgerClock(ledger),
        at_risk_within=settings.at_risk,
        sweep_every=settings.sweep_every,
        local=lambda: (
            *local_findings(ledger, settings.state_dir),
            *_statement_findings(settings, ledger),
            *_alert_loop_findings(settings, ledger),
            *not_compared(ledger.counts(), [parse_destination(url).name for url in settings.destinations]),
        ),
        host=socket.gethostname(),
    )


def _statement_findings(settings: Settings, ledger: Ledger) -> Iterator[Finding]:
    """Raises LedgerError."""
    if settings.statement_key is not None:
        now = ledger.now()
        yield from statement_findings(expect_statements(ledger, now), now, settings.retention)


def _alert_loop_findings(settings: Settings, ledger: Ledger) -> Iterator[Finding]:
    """Raises LedgerError."""
    if settings.alert_urls or settings.event_url is not None:
        yield from alert_loop_findings(ledger.recall_all(""), ledger.now())


def _seal_secret(settings: Settings) -> SecretStr:
    """The key that encrypts secrets in the ledger: the app secret, the same in every process. With only a management
    token, which changes, a random key in the state directory; another machine then restarts open uploads."""
    if settings.hms_secret is not None:
        return settings.hms_secret
    file = settings.state_dir / "ledger.seal"
    try:
        return SecretStr(file.read_text().strip())
    except FileNotFoundError:
        secret = secrets.token_urlsafe(32)
        write_private(file, f"{secret}\n")
        return SecretStr(secret)
