"""Named faults of sources, stores and the ledger, each for a while."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Fault:
    """`where`: api, api:<process>, api clock, api rows, ledger, store:<name>, source, source:<asset>. `kind`: see who
    acts on it."""

    where: str
    kind: str
    start: float
    end: float

    def active(self, seconds: float) -> bool:
        return self.start <= seconds < self.end


class Faults:
    def __init__(self) -> None:
        self._by_place: dict[str, list[Fault]] = defaultdict(list)

    def add(self, fault: Fault) -> None:
        self._by_place[fault.where].append(fault)

    def end(self, where: str, kind: str, seconds: float) -> None:
        """End what would go on after that."""
        self._by_place[where] = [
            replace(fault, end=min(fault.end, seconds)) if fault.kind == kind else fault
            for fault in self._by_place[where]
        ]

    def active(self, where: str, seconds: float) -> str | None:
        """The kind of the first fault that is active there."""
        for fault in self._by_place.get(where, ()):
            if fault.active(seconds):
                return fault.kind
        return None

    def is_active(self, where: str, kind: str, seconds: float) -> bool:
        return any(fault.kind == kind and fault.active(seconds) for fault in self._by_place.get(where, ()))

    def began(self, where: str, kind: str | None, seconds: float) -> float:
        """Return when the one of that kind (None: any) began that is active; `seconds` itself when there is none."""
        found = (
            fault.start
            for fault in self._by_place[where]
            if kind in (None, fault.kind) and fault.active(seconds)
        )
        return max(found, default=seconds)

    def windows(self, *places: str) -> list[tuple[float, float]]:
        return sorted((fault.start, fault.end) for place in places for fault in self._by_place.get(place, ()))

    @property
    def all(self) -> list[Fault]:
        return [fault for faults in self._by_place.values() for fault in faults]


def longest_clear(start: float, end: float, windows: list[tuple[float, float]]) -> float:
    """The longest time within [start, end) that no window touches."""
    best, at = 0.0, start
    for begin, finish in windows:
        if finish <= at:
            continue
        best = max(best, min(begin, end) - at)
        at = max(at, finish)
        if at >= end:
            return best
    return max(best, end - at)
