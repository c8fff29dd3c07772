"""A rate by the time of day, such as `08:00-20:00=50MB/s,else=unlimited`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import combinations

MIN_BYTES_PER_SECOND = 64 * 1024
"""Below that a part takes minutes, and a recording longer than 100ms keeps it."""

_DAY_MINUTES = 24 * 60
_WINDOW = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?([a-z]+)/s", re.IGNORECASE)
_UNITS: dict[str, float] = {
    **{unit + "b": 1000**power for power, unit in enumerate(["", "k", "m", "g"])},
    **{unit + "ib": 1024**power for power, unit in enumerate(["k", "m", "g"], 1)},
    **{unit + "bit": 1000**power / 8 for power, unit in enumerate(["", "k", "m", "g"])},
}
_EXAMPLE = "such as 50MB/s, or 08:00-20:00=50MB/s,else=unlimited"


class BadSchedule(ValueError):
    """The text is no schedule; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` until before `end`, in minutes of the day; past midnight if `end` is not later."""

    start: int
    end: int
    bytes_per_second: float | None

    def holds(self, minute: int) -> bool:
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


@dataclass(frozen=True, slots=True)
class RateSchedule:
    windows: tuple[Window, ...]
    otherwise: float | None
    zone: tzinfo

    @property
    def is_unlimited(self) -> bool:
        """Return whether it never limits."""
        return self.otherwise is None and all(window.bytes_per_second is None for window in self.windows)

    def at(self, now: datetime) -> float | None:
        """Return the bytes per second at `now` (aware); None: unlimited."""
        local = now.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        for window in self.windows:
            if window.holds(minute):
                return window.bytes_per_second
        return self.otherwise


def parse_schedule(text: str, zone: tzinfo) -> RateSchedule:
    """Parse one rate for the whole day, or windows `HH:MM-HH:MM=RATE` separated by commas and `else=RATE` (unlimited
    if it is left out). Raises BadSchedule."""
    windows: list[Window] = []
    rest: list[float | None] = []
    for entry in text.split(","):
        hours, equals, rate = (piece.strip() for piece in entry.rpartition("="))
        if not equals or hours.lower() == "else":
            rest.append(_rate(rate))
        else:
            windows.append(_window(hours, _rate(rate)))
    if len(rest) > 1:
        raise BadSchedule(f"has more than one rate for the rest of the day; expected one, {_EXAMPLE}")
    for one, other in combinations(windows, 2):
        if any(one.holds(minute) and other.holds(minute) for minute in range(_DAY_MINUTES)):
            raise BadSchedule(f"has two rates for one time of day: {_hours(one)} and {_hours(other)} overlap")
    return RateSchedule(tuple(windows), rest[0] if rest else None, zone)


def _window(text: str, bytes_per_second: float | None) -> Window:
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise BadSchedule(f"has {text!r} where hours are expected, {_EXAMPLE}")
    from_hour, from_minute, to_hour, to_minute = map(int, match.groups())
    start, end = from_hour * 60 + from_minute, to_hour * 60 + to_minute
    if max(from_minute, to_minute) > 59 or start >= _DAY_MINUTES or end > _DAY_MINUTES:
        raise BadSchedule(f"has {text!r}, which are no hours of a day (00:00 to 24:00)")
    if start == end:
        raise BadSchedule(f"has {text!r}, which is no time at all; use `else=` for the whole day")
    return Window(start, end, bytes_per_second)


def _rate(text: str) -> float | None:
    if text.lower() in ("unlimited", "off"):
        return None
    match = _RATE.fullmatch(text)
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise BadSchedule(f"has {text!r} where a rate with a unit is expected, {_EXAMPLE}")
    bytes_per_second = float(match.group(1)) * unit
    if bytes_per_second < MIN_BYTES_PER_SECOND:
        raise BadSchedule(
            f"has {text!r}, which is less than 64KiB/s; to stop copying for a while use `archiver pause`"
        )
    return bytes_per_second


def _hours(window: Window) -> str:
    start, end = divmod(window.start, 60), divmod(window.end, 60)
    return f"{start[0]:02}:{start[1]:02}-{end[0]:02}:{end[1]:02}"
