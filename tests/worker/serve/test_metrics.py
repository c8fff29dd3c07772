"""What a scrape shows, and that the documented table is all of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Route

from archiver.core.alerts import BOOK_FACT, Alert, AlertBook
from archiver.core.destinations import breaker
from archiver.core.health_rules import Severity
from archiver.core.upkeep import drill_report, reports, throughput
from archiver.core.upkeep.drill_report import DrillReport
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, CopyState, Seen, Settlement
from tests.core.examples import NOW
from tests.core.fakes import Clock
from tests.worker.serve.running import Samples, listening, samples
from worker.serve import metrics
from worker.serve.families import FAMILIES
from worker.serve.metrics import LedgerCollector, Metrics

DOCS = Path(__file__).parents[3] / "docs/metrics.md"
HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
FIRING = (Alert("on_hold", "s3://b", Severity.WARNING, "t", 1, NOW),)


class Away(MemoryLedger):
    def recall_all(self, prefix: str) -> Any:
        raise LedgerUnavailable("away")


class Scraped:
    """A ledger, and its metrics behind a real listener."""

    def __init__(self, ledger: MemoryLedger, alerts: Sequence[Alert] = ()) -> None:
        self.ledger = ledger
        self.collector = LedgerCollector(
            ledger,
            destinations=["s3://b", "gs://c"],
            alerts=lambda: alerts,
            at_risk_within=DAY,
            sweep_every=HOUR,
        )

    def scrape(self, **headers: str) -> httpx.Response:
        app = Starlette(routes=[Route("/metrics", Metrics(self.collector).metrics)])
        with listening(app) as listener:
            return httpx.get(f"{listener.url}/metrics", headers=headers, timeout=30, trust_env=False)

    def samples(self) -> Samples:
        return samples(self.scrape().text)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def scraped(clock: Clock) -> Scraped:
    return Scraped(MemoryLedger(clock), FIRING)


def sample(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def discover(ledger: MemoryLedger, number: int, *, left: timedelta = 10 * DAY, size: int = 1000) -> Seen:
    seen = Seen(
        f"a{number}", "room-vod", NOW + left, AssetState.DISCOVERED, size_bytes=size, created_at=NOW - DAY
    )
    ledger.discover([seen])
    return seen


def attempt(ledger: MemoryLedger, seen: Seen, how: Settlement) -> None:
    lease = ledger.lease(seen.asset_id, "w", HOUR)
    assert lease is not None
    ledger.settle(lease, seen, how)


def documented() -> Iterator[tuple[str, str, str, str, str]]:
    for line in DOCS.read_text().splitlines():
        if line.startswith("| `archiver_"):
            name, labels, kind, unit, meaning = (cell.strip() for cell in line.strip("|").split(" | "))
            yield name.strip("`"), labels, kind, unit, meaning


def test_the_documented_table_is_what_is_exported(scraped: Scraped) -> None:
    exported = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(scraped.scrape().text)
    }

    rows = list(documented())

    assert {name: kind for name, _, kind, _, _ in rows} == exported
    assert rows == [
        (
            each.name,
            ", ".join(f"`{label}`" for label in each.labels) or "–",
            each.type,
            each.unit,
            each.meaning,
        )
        for each in FAMILIES
    ]


def test_every_sample_has_the_labels_of_the_table(scraped: Scraped) -> None:
    fill(scraped.ledger)
    labels = {each.name: set(each.labels) for each in FAMILIES}

    found = scraped.samples()

    for name, given in found:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        assert {label for label, _ in given} - {"le"} == labels[family], name
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in found} == set(labels)


def fill(ledger: MemoryLedger) -> None:
    """Something for each family."""
    discover(ledger, 1)
    attempt(ledger, discover(ledger, 2), Settlement(AssetState.WAITING, delay=HOUR, cause="SourceGone"))
    attempt(
        ledger,
        discover(ledger, 3),
        Settlement(
            AssetState.ARCHIVED,
            stored_bytes=700,
            copied_bytes=900,
            copied_objects=2,
            copies={"s3://b": CopyState.WHOLE, "file:///gone": CopyState.LACKING},
        ),
    )
    discover(ledger, 4, left=DAY)
    ledger.take_due(1, HOUR)
    ledger.remember(SWEEP_FACT, {"started_at": (NOW - 2 * MINUTE).isoformat()})
    report = reports.ScrubReport(NOW, copies=5, overdue=1, oldest_check=NOW - DAY)
    reports.record_scrub(ledger, {"s3://b": report}, DAY, NOW)
    drill = DrillReport(copies=3, size_bytes=2**29, seconds=90.0, failed=("a", "b"))
    drill_report.record_drill(ledger, drill, 7 * DAY, NOW - HOUR)
    breaker.trip(ledger, "s3://b", "full", NOW)
    ledger.add_totals(
        {
            "request_seconds:store:0.05": 3,
            "request_seconds:store:more": 1,
            "request_seconds:store:microseconds": 2_500_000,
            "webhooks:unknown": 4,
        }
    )
    ledger.remember(BOOK_FACT, AlertBook({alert.key: alert for alert in FIRING}).as_fact())
    hours = {(NOW - number * HOUR).isoformat(): [3600, 10**9, 10, 3600, 10**9, 10] for number in range(1, 9)}
    ledger.remember(throughput.FACT, {"at": NOW.isoformat(), "hours": hours})
    throughput.remember_forecast(ledger, NOW)
    throughput.remember_copy_bytes(ledger, NOW)


def test_values_are_those_of_the_ledger(scraped: Scraped, clock: Clock) -> None:
    fill(scraped.ledger)
    clock.advance(MINUTE)

    found = scraped.samples()

    def value(name: str, **labels: str) -> float | None:
        return sample(found, f"archiver_{name}", **labels)

    assert value("ledger_up") == 1
    assert value("assets", state="discovered") == 1
    assert value("asset_bytes", state="archived") == 700
    assert value("asset_bytes", state="queued") == 1000
    assert value("destination_assets", destination="s3://b", state="whole") == 1
    assert value("destination_assets", destination="gs://c", state="whole") == 0
    assert value("destination_assets", destination="file:///gone", state="lacking") == 1
    assert value("destination_bytes", destination="s3://b", state="whole") == 700
    assert value("destination_bytes", destination="gs://c", state="damaged") == 0
    assert value("destination_bytes", destination="file:///gone", state="lacking") == 700
    assert value("nearest_deadline_seconds") == 86400 - 60
    assert value("oldest_unarchived_seconds") == 86400 + 60
    assert value("forecast_missed_assets", band="high") == 0
    assert value("forecast_done_seconds", band="likely") is not None
    assert value("copied_bytes_total") == 900
    assert value("copied_objects_total") == 2
    assert value("attempts_total", outcome="waiting") == 1
    assert value("attempts_total", outcome="lost") == 0
    assert value("failures_total", cause="SourceGone") == 1
    assert value("request_seconds_bucket", target="store", le="0.05") == 3
    assert value("request_seconds_bucket", target="store", le="300.0") == 3
    assert value("request_seconds_bucket", target="store", le="+Inf") == 4
    assert value("request_seconds_count", target="store") == 4
    assert value("request_seconds_sum", target="store") == 2.5
    assert value("request_seconds_count", target="api") == 0
    assert value("breaker_state", target="s3://b") == 2
    assert value("breaker_state", target="gs://c") == 0
    assert value("breaker_state", target=breaker.API) == 0
    assert value("queue_assets") == 1
    assert value("queue_oldest_seconds") == 60
    assert value("sweep_age_seconds") == 180
    assert value("scrub_copies", destination="s3://b") == 5
    assert value("scrub_overdue_copies", destination="s3://b") == 1
    assert value("scrub_oldest_check_seconds", destination="s3://b") == 86400 + 60
    assert value("drill_age_seconds") == 3600 + 60
    assert value("drill_failed_copies") == 2
    assert value("drill_seconds_per_gib") == 180
    assert value("alerts_firing", rule="on_hold", severity="warning") == 1
    assert value("webhooks_total", outcome="unknown") == 4
    assert value("webhooks_total", outcome="flooded") == 0


def test_what_is_not_known_has_no_sample(scraped: Scraped) -> None:
    found = scraped.samples()

    names = {name for name, _ in found}
    for unknown in (
        "forecast_missed_assets",
        "asset_bytes",
        "destination_bytes",
        "nearest_deadline_seconds",
        "sweep_age_seconds",
    ):
        assert f"archiver_{unknown}" not in names
    assert sample(found, "archiver_assets", state="lost") == 0


def test_without_the_ledger_only_that_and_the_alerts_are_told(clock: Clock) -> None:
    found = Scraped(Away(clock), FIRING).samples()

    assert found == {
        ("archiver_ledger_up", frozenset()): 0,
        ("archiver_alerts_firing", frozenset({("rule", "on_hold"), ("severity", "warning")})): 1,
    }


def test_a_ledger_that_hangs_is_away_before_prometheus_gives_up(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "SCRAPE_SECONDS", 0.1)
    never = threading.Event()

    class Hanging(MemoryLedger):
        def recall_all(self, prefix: str) -> Any:
            never.wait(20)
            raise LedgerUnavailable("away")

    try:
        assert sample(Scraped(Hanging(clock)).samples(), "archiver_ledger_up") == 0
    finally:
        never.set()


def test_openmetrics_is_spoken_to_who_asks_for_it(scraped: Scraped) -> None:
    answer = scraped.scrape(Accept="application/openmetrics-text; version=1.0.0")

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
