"""Ask for cold objects to become readable, and say what that costs and when to come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from archiver.core.upkeep.copies import Cold
from storage_backends.base import ObjectKey
from storage_backends.errors import StorageError
from storage_backends.optional import Thaw, ThawSpeed

DAYS = 7
"""How long a thawed object stays readable."""

COPY_PRICE = 0.023
"""US dollars for each GB and month of the readable copy, in S3 Standard of us-east-1, without tax, as of 2026."""
PRICES: Mapping[tuple[str, ThawSpeed], tuple[float, float]] = {
    ("GLACIER", ThawSpeed.STANDARD): (0.01, 0.05),
    ("GLACIER", ThawSpeed.BULK): (0.0, 0.0),
    ("DEEP_ARCHIVE", ThawSpeed.STANDARD): (0.02, 0.10),
    ("DEEP_ARCHIVE", ThawSpeed.BULK): (0.0025, 0.025),
}
"""US dollars for each GB retrieved, and for each 1,000 requests, likewise. Intelligent-Tiering charges neither."""


AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Thawing:
    """The requests of one run, in objects. `wait`: the longest until all can be read; None: they can be read now.
    `cost`: in US dollars, as far as PRICES tells."""

    asked: int = 0
    under_way: int = 0
    readable: int = 0
    wait: timedelta | None = None
    cost: float = 0.0
    problems: tuple[str, ...] = ()


def request_thaws(cold: Iterable[Cold], speed: ThawSpeed, days: int = DAYS) -> Thawing:
    """Ask each store for its cold objects. Idempotent: what is under way is not asked for again. One that fails is a
    problem of the result."""
    asked = under_way = readable = 0
    wait: timedelta | None = None
    cost = 0.0
    problems: list[str] = []
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="thaw") as pool:
        for each, thaw in pool.map(lambda each: (each, _ask(each, speed, days)), cold):
            if isinstance(thaw, str):
                problems.append(thaw)
            elif thaw.ready_within is None:
                readable += 1
            else:
                wait = max(wait or timedelta(), thaw.ready_within)
                asked += thaw.asked
                under_way += not thaw.asked
                cost += _cost(each, thaw, speed, days) if thaw.asked else 0
    return Thawing(asked, under_way, readable, wait, cost, tuple(problems))


def _ask(each: Cold, speed: ThawSpeed, days: int) -> Thaw | str:
    ask: Callable[[ObjectKey, ThawSpeed, int], Thaw] | None = getattr(each.store, "thaw", None)
    if ask is None:  # storage_backends/optional
        return f"{each.store.name} cannot be asked by this tool to make {each.key} readable"
    try:
        return ask(each.key, speed, days)
    except StorageError as error:
        return str(error)


def _cost(each: Cold, thaw: Thaw, speed: ThawSpeed, days: int) -> float:
    each_gb, each_thousand = PRICES.get((thaw.storage_class, speed), (0.0, 0.0))
    return each.size_bytes / 1e9 * (each_gb + COPY_PRICE * days / 30) + each_thousand / 1000
