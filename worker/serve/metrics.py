"""/metrics, read from the ledger at each scrape.

Counters live in the ledger, so that they are right whatever number of workers is restarted. Nothing here reads an
asset's row but the most urgent of each state: a scrape takes as long with a million assets as with one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from archiver.core.alerts import BOOK_FACT, Alert, AlertBook
from archiver.core.deadlines import source_ends_at
from archiver.core.destinations import breaker
from archiver.core.health import UNSAVED_STATES, Summary
from archiver.core.upkeep import drill_report, reports, status, throughput
from archiver.hms.models import parse_time
from archiver.http.tally import BOUNDS_SECONDS, REQUESTS, REST, SUM
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LedgerError
from archiver.ledger.models import (
    ATTEMPTS,
    COPIED_BYTES,
    COPIED_OBJECTS,
    FAILURES,
    POSTPONED,
    AssetState,
    CopyState,
    Row,
)
from worker.serve.calls import Busy, SharedCall
from worker.serve.families import FAMILIES
from worker.serve.webhooks import WEBHOOKS, Outcome

SCRAPE_SECONDS = 5
"""For the ledger to answer; Prometheus waits for 10 s. Afterwards it counts as away."""

REQUEST_TARGETS = ("api", "source", "store")
ATTEMPT_OUTCOMES = (
    AssetState.ARCHIVED,
    AssetState.WAITING,
    AssetState.QUARANTINED,
    AssetState.LOST,
    AssetState.NEEDS_SOURCE_ACCESS,
)


_KINDS = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}


class _Families:
    """One scrape's samples."""

    def __init__(self) -> None:
        self.made = {
            each.name: _KINDS[each.type](
                each.name.removesuffix("_total"), each.meaning, labels=each.labels or None
            )
            for each in FAMILIES
        }

    def add(self, name: str, value: float, *labels: str) -> None:
        self.made[name].add_metric(labels, value)

    def add_age(self, name: str, now: datetime, since: datetime | None, *labels: str) -> None:
        if since is not None:
            self.add(name, (now - since).total_seconds(), *labels)

    def add_histogram(self, name: str, buckets: list[tuple[str, float]], total: float, label: str) -> None:
        family = self.made[name]
        assert isinstance(family, HistogramMetricFamily)
        family.add_metric([label], buckets, total)


class LedgerCollector(Collector):
    """Reads every metric from the ledger, in some 15 calls that take bounded time."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        destinations: Sequence[str],
        alerts: Callable[[], Iterable[Alert]],
        at_risk_within: timedelta,
        sweep_every: timedelta,
    ) -> None:
        """`destinations`: their names. `alerts`: those known to fire while the ledger is away; must not raise."""
        self._ledger = ledger
        self._destinations = destinations
        self._alerts = alerts
        self._at_risk_within = at_risk_within
        self._sweep_every = sweep_every

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        families = _Families()
        try:
            self._read(families)
        except LedgerError:
            yield from self.without_ledger()
            return
        families.add("archiver_ledger_up", 1)
        yield from families.made.values()

    def without_ledger(self) -> Iterator[Metric]:
        families = _Families()
        families.add("archiver_ledger_up", 0)
        _add_alerts(families, self._alerts())
        yield from families.made.values()

    def _read(self, families: _Families) -> None:
        ledger = self._ledger
        facts = ledger.recall_all("")
        now = ledger.now()
        summary = status.summarize_facts(
            ledger, facts, now, at_risk_within=self._at_risk_within, sweep_every=self._sweep_every
        )
        for state in AssetState:
            families.add("archiver_assets", summary.counts.states.get(state, 0), state)
        for state, amount in throughput.last_amounts(facts).items():
            families.add("archiver_asset_bytes", amount.size_bytes, state)
        self._add_destinations(families, summary.counts.copies, throughput.last_copy_bytes(facts))
        self._add_most_urgent(families, now)
        _add_forecast(families, summary)
        _add_totals(families, ledger.totals())
        self._add_breakers(families, facts, now)
        families.add("archiver_queue_assets", summary.counts.states.get(AssetState.QUEUED, 0))
        families.add_age("archiver_queue_oldest_seconds", now, ledger.queued_since() or now)
        families.add_age("archiver_sweep_age_seconds", now, summary.swept_at)
        _add_scrub(families, facts.get(reports.SCRUB_FACT), now)
        _add_drill(families, facts.get(drill_report.DRILL_FACT), now)
        _add_alerts(families, AlertBook.from_fact(facts.get(BOOK_FACT)).firing())

    def _add_destinations(
        self,
        families: _Families,
        assets: Mapping[str, Mapping[CopyState, int]],
        size_bytes: Mapping[str, Mapping[CopyState, int]],
    ) -> None:
        for name in dict.fromkeys((*self._destinations, *assets)):
            for state in CopyState:
                families.add("archiver_destination_assets", assets.get(name, {}).get(state, 0), name, state)
                if size_bytes:
                    held = size_bytes.get(name, {}).get(state, 0)
                    families.add("archiver_destination_bytes", held, name, state)

    def _add_most_urgent(self, families: _Families, now: datetime) -> None:
        urgent: list[Row] = []
        for state in UNSAVED_STATES:
            urgent += self._ledger.rows([state], limit=1)
        if urgent:
            first = min(urgent, key=source_ends_at)
            left = (source_ends_at(first) - now).total_seconds()
            families.add("archiver_nearest_deadline_seconds", left)
            since = first.created_at or first.first_seen_at
            families.add_age("archiver_oldest_unarchived_seconds", now, since)

    def _add_breakers(
        self, families: _Families, facts: Mapping[str, Mapping[str, object]], now: datetime
    ) -> None:
        states = dict.fromkeys((breaker.API, *self._destinations), 0)
        states |= dict.fromkeys(breaker.half_open(facts, now), 1)
        states |= dict.fromkeys(breaker.opened(self._ledger, now), 2)
        for name, state in states.items():
            families.add("archiver_breaker_state", state, name)


def _add_alerts(families: _Families, alerts: Iterable[Alert]) -> None:
    firing = Counter((alert.rule_id, alert.severity.value) for alert in alerts)
    for labels, number in firing.items():
        families.add("archiver_alerts_firing", number, *labels)


def _add_forecast(families: _Families, summary: Summary) -> None:
    found = summary.forecast
    if found is None:
        return
    for name, band in (
        ("archiver_forecast_done_seconds", found.done_in_seconds),
        ("archiver_forecast_missed_assets", found.missed_assets),
        ("archiver_forecast_missed_bytes", found.missed_bytes),
    ):
        for label in ("low", "likely", "high"):
            families.add(name, getattr(band, label), label)


def _add_totals(families: _Families, totals: Mapping[str, int]) -> None:
    families.add("archiver_copied_bytes_total", totals.get(COPIED_BYTES, 0))
    families.add("archiver_copied_objects_total", totals.get(COPIED_OBJECTS, 0))
    attempts = dict.fromkeys(map(str, ATTEMPT_OUTCOMES), 0) | _named(totals, ATTEMPTS)
    for outcome, number in {**attempts, "postponed": totals.get(POSTPONED, 0)}.items():
        families.add("archiver_attempts_total", number, outcome)
    for cause, number in _named(totals, FAILURES).items():
        families.add("archiver_failures_total", number, cause)
    webhooks = dict.fromkeys(map(str, Outcome), 0) | _named(totals, WEBHOOKS)
    for outcome, number in webhooks.items():
        families.add("archiver_webhooks_total", number, outcome)
    for target in REQUEST_TARGETS:
        counted = _named(totals, f"{REQUESTS}{target}:")
        buckets, cumulated = [], 0
        for bound in (*map(str, BOUNDS_SECONDS), REST):
            cumulated += counted.get(bound, 0)
            buckets.append(("+Inf" if bound == REST else bound, float(cumulated)))
        families.add_histogram("archiver_request_seconds", buckets, counted.get(SUM, 0) / 1e6, target)


def _named(totals: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): number for name, number in totals.items() if name.startswith(prefix)}


def _add_scrub(families: _Families, fact: Mapping[str, object] | None, now: datetime) -> None:
    destinations = (fact or {}).get("destinations")
    for name, each in (destinations if isinstance(destinations, Mapping) else {}).items():
        if not isinstance(each, Mapping):
            continue
        for metric, field in (
            ("archiver_scrub_copies", "copies"),
            ("archiver_scrub_overdue_copies", "overdue"),
        ):
            if isinstance(number := each.get(field), int):
                families.add(metric, number, name)
        oldest = parse_time(each.get("oldest_check"))
        families.add_age("archiver_scrub_oldest_check_seconds", now, oldest, name)


def _add_drill(families: _Families, fact: Mapping[str, object] | None, now: datetime) -> None:
    at = drill_report.drilled_at(fact)
    if at is None:
        return
    families.add_age("archiver_drill_age_seconds", now, at)
    families.add("archiver_drill_failed_copies", drill_report.failures(fact))
    if (rate := drill_report.seconds_per_gib(fact)) is not None:
        families.add("archiver_drill_seconds_per_gib", rate)


class Metrics:
    """Answers scrapes, in the format that the scraper asks for."""

    def __init__(self, collector: LedgerCollector) -> None:
        self._collector = collector
        self._scrape = SharedCall("metrics", lambda: list(collector.collect()), seconds=SCRAPE_SECONDS)

    async def metrics(self, request: Request) -> Response:
        try:
            families = await self._scrape()
        except (TimeoutError, Busy):
            families = list(self._collector.without_ledger())
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Fixed(families))
        return Response(encode(registry), headers={"Content-Type": content_type})


class _Fixed(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._families
