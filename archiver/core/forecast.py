"""Forecast when everything is saved, and what will miss its deadline. Pure.

The hours of the past are replayed at random (a moving-block bootstrap) into PATHS possible futures. In each of them the
assets are copied in the order of their deadlines, and one whose deadline passes is missed. The 90 % band is what
lies between the percentiles LOW and HIGH of those futures.

An hour's rate is counted in work: its bytes, and ASSET_WORK_BYTES for each asset, since small assets cost requests
rather than bandwidth. What arrives later has a later deadline and delays nothing that is known now.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

PATHS = 300
BLOCK_HOURS = 12
"""Consecutive hours that are replayed together: a slow hour is seldom alone."""
FEWEST_HOURS = 3
"""Hours of measured work below which nothing is forecast."""
FEWEST_BUSY = timedelta(minutes=5)
"""An hour with less work than this says nothing of what an hour can do."""
HORIZON = timedelta(days=60)
ASSET_WORK_BYTES = 1 << 20
"""What an asset costs beside its bytes, as bytes: measured with tiny assets and with large files on one machine
(docs/benchmarks.md), both in one process."""
LOW, HIGH = 0.025, 0.975
"""Percentiles of the futures. What a few hundred hours replay is narrower than what comes: these hold the 90 % that are
promised (tests/core/test_forecast.py: 91 % of outcomes; 5 and 95 held 83 %)."""

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Hour:
    """What was copied in one hour while there was work. `busy`: for how much of it there was."""

    busy: timedelta
    size_bytes: int
    assets: int


@dataclass(frozen=True, slots=True)
class Due:
    """Assets that are not saved yet and have (about) the same deadline."""

    deadline: datetime
    assets: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Band:
    """`likely` is the median; nine outcomes in ten lie between `low` and `high`."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """`done_in_seconds`: until the last asset is saved or missed; HORIZON at the most. `missed_*`: of those with a
    deadline ahead. `first_missed_at`: the earliest deadline that half of the futures miss, None when they miss none;
    `first_missed_at_worst`: that one in forty misses. `bytes_per_second`: of the median hour."""

    assets_left: int
    bytes_left: int
    done_in_seconds: Band
    missed_assets: Band
    missed_bytes: Band
    first_missed_at: datetime | None
    first_missed_at_worst: datetime | None
    bytes_per_second: float
    hours_measured: int


def forecast(now: datetime, left: Sequence[Due], history: Sequence[Hour]) -> Forecast | None:
    """Forecast from the `history`, oldest first. None: too little was measured to say anything. Deterministic."""
    hours = [hour for hour in history if hour.busy >= FEWEST_BUSY]
    if len(hours) < FEWEST_HOURS:
        return None
    rates = [_work(hour.assets, hour.size_bytes) / (hour.busy / _HOUR) for hour in hours]
    queue = sorted(left, key=lambda due: due.deadline)
    work = sum(_work(due.assets, due.size_bytes) for due in queue)
    futures = [
        _run(_path(rates, work, random.Random(number)), now, queue)  # noqa: S311 - replayed, not guessed
        for number in range(PATHS)
    ]
    by_bytes = sorted(hour.size_bytes / hour.busy.total_seconds() for hour in hours)
    return Forecast(
        assets_left=sum(due.assets for due in queue),
        bytes_left=sum(due.size_bytes for due in queue),
        done_in_seconds=_band([future.hours * 3600 for future in futures]),
        missed_assets=_band([future.missed_assets for future in futures]),
        missed_bytes=_band([future.missed_bytes for future in futures]),
        first_missed_at=_first([future.first_missed_at for future in futures], 0.5),
        first_missed_at_worst=_first([future.first_missed_at for future in futures], LOW),
        bytes_per_second=by_bytes[len(by_bytes) // 2],
        hours_measured=len(hours),
    )


@dataclass(frozen=True, slots=True)
class _Future:
    hours: float
    missed_assets: int
    missed_bytes: int
    first_missed_at: datetime | None


def _work(assets: int, size_bytes: int) -> int:
    return size_bytes + assets * ASSET_WORK_BYTES


def _path(rates: Sequence[float], work: float, chance: random.Random) -> list[float]:
    """Work done by the end of each hour from now on, until all of it is, or HORIZON. The mean of the past is itself
    uncertain: each path has its own, that of the past replayed once."""
    mean = sum(rates) / len(rates)
    again = sum(islice(_replay(rates, chance), len(rates))) / len(rates)
    scale = again / mean if mean else 0.0
    done, done_by = 0.0, []
    for rate in islice(_replay(rates, chance), HORIZON // _HOUR):
        done += rate * scale
        done_by.append(done)
        if done > work:
            break
    return done_by


def _replay(rates: Sequence[float], chance: random.Random) -> Iterator[float]:
    block = min(BLOCK_HOURS, max(1, len(rates) // 4))
    round_again = [*rates, *rates[:block]]
    while True:
        start = int(chance.random() * len(rates))
        yield from round_again[start : start + block]


def _run(done_by: Sequence[float], now: datetime, queue: Sequence[Due]) -> _Future:
    """Copy the queue in order along one path."""
    used = 0.0
    missed_assets = missed_bytes = 0
    first_missed_at = None
    for due in queue:
        work = _work(due.assets, due.size_bytes)
        possible = _done(done_by, (due.deadline - now) / _HOUR) - used
        if due.deadline <= now or work <= possible:  # what is past has no deadline any more
            used += work
            continue
        missing = (work - possible) / work
        missed_assets += max(1, round(due.assets * missing))
        missed_bytes += round(due.size_bytes * missing)
        first_missed_at = first_missed_at or due.deadline
        used += possible
    return _Future(_hours_for(done_by, used), missed_assets, missed_bytes, first_missed_at)


def _done(done_by: Sequence[float], hours: float) -> float:
    """Work done after so many hours."""
    if hours <= 0:
        return 0.0
    whole = int(hours)
    if whole >= len(done_by):
        return done_by[-1]
    before = done_by[whole - 1] if whole else 0.0
    return before + (done_by[whole] - before) * (hours - whole)


def _hours_for(done_by: Sequence[float], work: float) -> float:
    if work <= 0:
        return 0.0
    whole = bisect_right(done_by, work)
    if whole == len(done_by):
        return float(len(done_by))
    before = done_by[whole - 1] if whole else 0.0
    return whole + (work - before) / (done_by[whole] - before)


def _band(values: Sequence[float]) -> Band:
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]

    return Band(at(LOW), at(0.5), at(HIGH))


def _first(times: Sequence[datetime | None], share: float) -> datetime | None:
    """The earliest time by which at least `share` of the futures have missed something."""
    missed = sorted(time for time in times if time is not None)
    needed = max(1, math.ceil(share * len(times)))
    return missed[needed - 1] if len(missed) >= needed else None
