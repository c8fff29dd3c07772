"""The table of metrics. docs/metrics.md shows it; a test compares the two."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table in docs/metrics.md. `unit`: of the values."""

    name: str
    type: str
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()


FAMILIES = (
    Family(
        "archiver_ledger_up",
        "gauge",
        "0 or 1",
        "Whether the ledger's Redis answers; while it does not, only alerts have samples.",
    ),
    Family(
        "archiver_assets",
        "gauge",
        "assets",
        "Assets by state.",
        ("state",),
    ),
    Family(
        "archiver_asset_bytes",
        "gauge",
        "bytes",
        "Bytes by state: stored ones, or the API's word; measured every 10 minutes.",
        ("state",),
    ),
    Family(
        "archiver_destination_assets",
        "gauge",
        "assets",
        "Assets by destination and what it holds of them: `whole`, `lacking`, `damaged`.",
        ("destination", "state"),
    ),
    Family(
        "archiver_destination_bytes",
        "gauge",
        "bytes",
        "Bytes of assets with an end, the same way; measured every hour.",
        ("destination", "state"),
    ),
    Family(
        "archiver_nearest_deadline_seconds",
        "gauge",
        "seconds",
        "Until 100ms deletes the most urgent asset that is not archived; negative when that is past.",
    ),
    Family(
        "archiver_oldest_unarchived_seconds",
        "gauge",
        "seconds",
        "Age of that asset, from its recording or, if unknown, from when it was first seen.",
    ),
    Family(
        "archiver_forecast_done_seconds",
        "gauge",
        "seconds",
        "Until everything known is saved, at the measured rate; `low` to `high` holds nine outcomes of ten.",
        ("band",),
    ),
    Family(
        "archiver_forecast_missed_assets",
        "gauge",
        "assets",
        "Assets that will miss their deadline at the measured rate.",
        ("band",),
    ),
    Family(
        "archiver_forecast_missed_bytes",
        "gauge",
        "bytes",
        "Their bytes.",
        ("band",),
    ),
    Family(
        "archiver_copied_bytes_total",
        "counter",
        "bytes",
        "Bytes that attempts copied, whatever their outcome; counted when an attempt ends.",
    ),
    Family(
        "archiver_copied_objects_total",
        "counter",
        "objects",
        "Objects that attempts stored.",
    ),
    Family(
        "archiver_attempts_total",
        "counter",
        "attempts",
        "Attempts by how they ended; `postponed`: nothing was tried, and none was counted.",
        ("outcome",),
    ),
    Family(
        "archiver_failures_total",
        "counter",
        "attempts",
        "Attempts that failed, by the kind of error.",
        ("cause",),
    ),
    Family(
        "archiver_request_seconds",
        "histogram",
        "seconds",
        "Duration of HTTP requests to the 100ms API, to sources and to stores, with their bodies; "
        "without what boto3 and the GCS client send themselves.",
        ("target",),
    ),
    Family(
        "archiver_breaker_state",
        "gauge",
        "0, 1, 2",
        "Circuit breaker of a destination or of the API: 0 closed, 1 half-open, 2 open.",
        ("target",),
    ),
    Family(
        "archiver_queue_assets",
        "gauge",
        "assets",
        "Assets with a message in the broker's queues.",
    ),
    Family(
        "archiver_queue_oldest_seconds",
        "gauge",
        "seconds",
        "Age of the oldest of these messages; 0 without one.",
    ),
    Family(
        "archiver_sweep_age_seconds",
        "gauge",
        "seconds",
        "Since the start of the last sweep that ended.",
    ),
    Family(
        "archiver_scrub_copies",
        "gauge",
        "copies",
        "Copies at the destination, as of the last scrub.",
        ("destination",),
    ),
    Family(
        "archiver_scrub_overdue_copies",
        "gauge",
        "copies",
        "Those that were not checked in time.",
        ("destination",),
    ),
    Family(
        "archiver_scrub_oldest_check_seconds",
        "gauge",
        "seconds",
        "Age of the oldest check of a copy there.",
        ("destination",),
    ),
    Family(
        "archiver_drill_age_seconds",
        "gauge",
        "seconds",
        "Since the last drill that ended.",
    ),
    Family(
        "archiver_drill_failed_copies",
        "gauge",
        "copies",
        "Copies that the last drill could not restore, or that do not play.",
    ),
    Family(
        "archiver_drill_seconds_per_gib",
        "gauge",
        "seconds",
        "How long the last drill took for each GiB that it restored, compared and decoded.",
    ),
    Family(
        "archiver_alerts_firing",
        "gauge",
        "alerts",
        "Alerts that fire, by rule; known while Redis is unreachable too.",
        (
            "rule",
            "severity",
        ),
    ),
    Family(
        "archiver_webhooks_total",
        "counter",
        "webhooks",
        "Webhooks of 100ms, by outcome.",
        ("outcome",),
    ),
)
