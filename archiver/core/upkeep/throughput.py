"""Measure how much was copied in each hour of the last two weeks, for the forecast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Protocol

from archiver.core.deadlines import UNDATED
from archiver.core.forecast import Band, Due, Forecast, Hour, forecast
from archiver.core.health import UNSAVED_STATES
from archiver.hms.models import parse_time
from archiver.ledger.base import Assets, Facts, Totals
from archiver.ledger.models import ATTEMPTS, COPIED_BYTES, Amount, AssetState, CopyState

FACT = "throughput"
FORECAST_FACT = "forecast"
AMOUNTS_FACT = "amounts"
FORECAST_EVERY = timedelta(minutes=10)
COPY_BYTES_FACT = "copy_bytes"
COPY_BYTES_EVERY = timedelta(hours=1)
COPY_BYTES_LIFETIME = timedelta(hours=3)
FORECAST_LIFETIME = timedelta(
    hours=1
)  # an older one says nothing: the watch is dead, which is told elsewhere
KEPT = timedelta(days=14)
LONGEST_STEP = timedelta(hours=1)
"""Between two observations. After a longer silence nobody knows whether the workers had work."""

_HOUR = timedelta(hours=1)


class Ledger(Assets, Facts, Totals, Protocol):
    """What is read and kept here."""


def observe(ledger: Ledger, now: datetime) -> None:
    """Add what was copied since the last observation to the hour of `now`: as done while every slot was taken when
    assets were queued, and as done while there was work when any was running. Call it every minute. A second observer
    does no harm: each adds what is new since the one before. Raises LedgerError."""
    totals, states = ledger.totals(), ledger.counts().states
    size_bytes = totals.get(COPIED_BYTES, 0) + sum(copy.bytes_done for copy in ledger.progress())
    assets = sum(
        totals.get(f"{ATTEMPTS}{state}", 0) for state in (AssetState.ARCHIVED, AssetState.QUARANTINED)
    )
    fact = ledger.recall(FACT) or {}
    hours = _hours(fact)
    since = parse_time(fact.get("at"))
    step = now - since if since is not None else LONGEST_STEP
    if timedelta(0) < step < LONGEST_STEP:
        amounts = [max(0, size_bytes - _number(fact, "bytes")), max(0, assets - _number(fact, "assets"))]
        hour = hours.setdefault(now.replace(minute=0, second=0, microsecond=0).isoformat(), [0] * 6)
        queued, running = states.get(AssetState.QUEUED, 0), states.get(AssetState.RUNNING, 0)
        for first, had_work in ((0, queued), (3, queued or running or any(amounts))):
            if had_work:
                added = [step.total_seconds(), *amounts]
                hour[first : first + 3] = [
                    old + new for old, new in zip(hour[first : first + 3], added, strict=True)
                ]
    oldest = (now - KEPT).isoformat()
    kept = {at: hour for at, hour in hours.items() if at >= oldest}
    ledger.remember(FACT, {"at": now.isoformat(), "bytes": size_bytes, "assets": assets, "hours": kept})


def history(ledger: Facts) -> list[Hour]:
    """Return the measured hours, oldest first. Those in which every slot was taken say what can be done; while there
    are none, what was done with some slots idle is less than that, and errs on the safe side. Raises LedgerError."""
    hours = [hour for _, hour in sorted(_hours(ledger.recall(FACT) or {}).items())]
    full = [_hour(hour[:3]) for hour in hours if hour[0]]
    enough = sum((hour.busy for hour in full), timedelta(0)) >= 3 * _HOUR
    return full if enough else [_hour(hour[3:]) for hour in hours if hour[3]]


def remember_forecast(ledger: Ledger, now: datetime) -> None:
    """Make a forecast and sum up the assets by state, unless that was done within FORECAST_EVERY. Raises
    LedgerError."""
    fact = ledger.recall(FORECAST_FACT)
    made_at = parse_time(fact.get("made_at")) if fact else None
    if made_at is not None and timedelta(0) <= now - made_at < FORECAST_EVERY:
        return
    amounts = ledger.amounts()
    ledger.remember(AMOUNTS_FACT, _totalled(amounts, now), lifetime=FORECAST_LIFETIME)
    found = forecast(now, left(amounts), history(ledger))
    saved = {"made_at": now.isoformat()} | ({} if found is None else _as_fact(found))
    ledger.remember(FORECAST_FACT, saved, lifetime=FORECAST_LIFETIME)


def remember_copy_bytes(ledger: Ledger, now: datetime) -> None:
    """Sum up what each destination holds, unless that was done within COPY_BYTES_EVERY, or FORECAST_EVERY
    while they held nothing. Raises LedgerError."""
    fact = ledger.recall(COPY_BYTES_FACT) or {}
    made_at = parse_time(fact.get("made_at"))
    every = COPY_BYTES_EVERY if fact.get("destinations") else FORECAST_EVERY
    if made_at is None or not timedelta(0) <= now - made_at < every:
        held = {name: dict(copies) for name, copies in ledger.copy_bytes().items()}
        ledger.remember(
            COPY_BYTES_FACT, {"made_at": now.isoformat(), "destinations": held}, lifetime=COPY_BYTES_LIFETIME
        )


def last_copy_bytes(facts: Mapping[str, Mapping[str, object]]) -> Mapping[str, Mapping[CopyState, int]]:
    """Read from the ledger's facts what each destination holds; empty when that was not summed up."""
    held = facts.get(COPY_BYTES_FACT, {}).get("destinations")
    return {
        name: {copy: size for copy in CopyState if isinstance(size := copies.get(copy), int)}
        for name, copies in (held.items() if isinstance(held, Mapping) else ())
        if isinstance(copies, Mapping)
    }


def last_forecast(facts: Mapping[str, Mapping[str, object]]) -> Forecast | None:
    """Read the forecast from the ledger's facts. None: none was made within FORECAST_LIFETIME, or too little was
    measured."""
    fact = facts.get(FORECAST_FACT, {})
    try:
        return Forecast(
            assets_left=_number(fact, "assets_left"),
            bytes_left=_number(fact, "bytes_left"),
            done_in_seconds=_band(fact["done_in_seconds"]),
            missed_assets=_band(fact["missed_assets"]),
            missed_bytes=_band(fact["missed_bytes"]),
            first_missed_at=parse_time(fact["first_missed_at"]),
            first_missed_at_worst=parse_time(fact["first_missed_at_worst"]),
            bytes_per_second=float(str(fact["bytes_per_second"])),
            hours_measured=_number(fact, "hours_measured"),
        )
    except (KeyError, ValueError):
        return None


def last_amounts(facts: Mapping[str, Mapping[str, object]]) -> Mapping[AssetState, Amount]:
    """Read assets and bytes by state from the ledger's facts, as of the last forecast; empty without one."""
    states = facts.get(AMOUNTS_FACT, {}).get("states")
    found = {}
    for state in AssetState:
        match states.get(state) if isinstance(states, Mapping) else None:
            case [int(assets), int(size_bytes), int(unsized)]:
                found[state] = Amount(assets, size_bytes, unsized)
    return found


def left(amounts_by_state: Mapping[AssetState, Mapping[datetime, Amount]]) -> list[Due]:
    """Return what is not saved yet, by the hour of its deadline. An asset of unknown size counts as one of average
    size."""
    amounts = [each for state in UNSAVED_STATES for each in amounts_by_state.get(state, {}).items()]
    sized = sum(amount.assets - amount.unsized for _, amount in amounts)
    average = sum(amount.size_bytes for _, amount in amounts) // sized if sized else 0
    return [
        Due(
            max(UNDATED, deadline),
            amount.assets,
            amount.size_bytes + amount.unsized * average,
        )
        for deadline, amount in amounts
    ]


def _totalled(amounts: Mapping[AssetState, Mapping[datetime, Amount]], now: datetime) -> dict[str, object]:
    states = {state: sum(hours.values(), Amount(0, 0)) for state, hours in amounts.items()}
    return {
        "made_at": now.isoformat(),
        "states": {
            str(state): [each.assets, each.size_bytes, each.unsized] for state, each in states.items()
        },
    }


def _as_fact(found: Forecast) -> dict[str, object]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(found).items()
    }


def _band(saved: object) -> Band:
    if not isinstance(saved, Mapping):
        raise ValueError("not a band")
    return Band(float(saved["low"]), float(saved["likely"]), float(saved["high"]))


def _hours(fact: Mapping[str, object]) -> dict[str, list[float]]:
    hours = fact.get("hours")
    if not isinstance(hours, Mapping):
        return {}
    return {at: list(hour) for at, hour in hours.items() if isinstance(hour, list) and len(hour) == 6}


def _hour(numbers: list[float]) -> Hour:
    seconds, size_bytes, assets = numbers
    return Hour(timedelta(seconds=seconds), int(size_bytes), int(assets))


def _number(fact: Mapping[str, object], name: str) -> int:
    value = fact.get(name)
    return int(value) if isinstance(value, int | float) else 0
