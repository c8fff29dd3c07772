"""The limits of a process, as the settings say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.urgency import would_miss_deadline
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import Lease
from archiver.limits.rate_limit import RateLimit
from archiver.transfer.bandwidth import UsualSize
from worker.limits import api_limit, bandwidth_of, copy_limit, scrub_limit
from worker.settings import Settings

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Now:
    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time


def settings(**given: object) -> Settings:
    return Settings(_env_file=None, **given)  # type: ignore[arg-type]


def test_by_default_nothing_is_limited() -> None:
    ledger, now = MemoryLedger(Now()), Now()
    limits = (
        copy_limit(settings(), ledger, now),
        scrub_limit(settings(), ledger, now),
        api_limit(settings(), ledger),
    )

    assert limits == (None, None, None)


def test_two_processes_share_a_rate_and_the_scrub_has_its_own() -> None:
    now = Now()
    ledger = MemoryLedger(now)
    given = settings(bandwidth="1MB/s", scrub_bandwidth="2MB/s")
    one, other = copy_limit(given, ledger, now), copy_limit(given, ledger, now)
    scrub = scrub_limit(given, ledger, now)
    assert one is not None
    assert other is not None
    assert scrub is not None

    assert one.reserve(10_000_000) == pytest.approx(10, abs=0.5)
    assert other.reserve(10_000_000) == pytest.approx(20, abs=0.5)
    assert scrub.reserve(10_000_000) == pytest.approx(5, abs=0.5)


def test_the_rate_is_that_of_the_hour_in_the_zone_that_is_named() -> None:
    now = Now()
    given = settings(bandwidth="08:00-20:00=1MB/s", bandwidth_zone="Pacific/Auckland")
    limit = copy_limit(given, MemoryLedger(now), now)
    assert limit is not None

    assert limit.per_second() is None  # midnight there
    now.time += timedelta(hours=9)
    assert limit.per_second() == 1e6


def test_without_redis_a_process_keeps_to_its_share() -> None:
    class Away(MemoryLedger):
        def reserve(self, name: str, amount: float, per_second: float) -> timedelta:
            raise LedgerUnavailable("it is away")

    now = Now()
    limit = copy_limit(settings(bandwidth="1MB/s", worker_concurrency=4), Away(now), now)
    assert limit is not None

    assert limit.reserve(1_000_000) == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize(
    ("left", "size_bytes", "ignored"),
    [
        (4 * DAY, 10**9, False),
        (3 * DAY, 10**9, True),
        (-DAY, 10**9, True),
        (4 * DAY, 10**12, True),  # a terabyte takes 11 days at 1 MB/s
        (4 * DAY, 0, False),
    ],
)
def test_a_copy_that_would_miss_its_deadline_ignores_the_limit(
    left: timedelta, size_bytes: int, ignored: bool
) -> None:
    assert would_miss_deadline(NOON + left, size_bytes, NOON, 3 * DAY, 1e6) is ignored


def test_the_deadline_is_that_of_the_asset_that_is_copied() -> None:
    now = Now()
    ledger = MemoryLedger(now)
    limit = RateLimit("copy", lambda: 1e6, lambda *_: 3600.0)

    def bandwidth(expires_at: datetime) -> object:
        heartbeat = Heartbeat(
            ledger,
            Lease("a", 1, "w"),
            DAY,
            renew_every=DAY,
            asset_type="recording",
            bytes_total=1000,
            expires_at=expires_at,
        )
        return bandwidth_of(limit, UsualSize(), heartbeat, now, 3 * DAY)._is_ignored()

    assert bandwidth(NOON + 2 * DAY) is True
    assert bandwidth(NOON + 10 * DAY) is False


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bandwidth": "8-20=50MB/s"}, "ARCHIVER_BANDWIDTH: has '8-20' where hours are expected"),
        ({"bandwidth": "0MB/s"}, "archiver pause"),
        (
            {"scrub_bandwidth": "fast"},
            "ARCHIVER_SCRUB_BANDWIDTH: has 'fast' where a rate with a unit is expected",
        ),
        ({"bandwidth_zone": "Berlin"}, "'Berlin' is no time zone"),
        ({"bandwidth_zone": "../etc/passwd"}, "is no time zone"),
        ({"api_rate": 0}, "greater than or equal to 0.1"),
        ({"destination_connections": 0}, "greater than or equal to 1"),
    ],
)
def test_a_limit_that_is_none_says_what_is_wrong(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        settings(**given)
