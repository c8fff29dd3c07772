"""Which request meets which fault: asked for (`Faults.add`) or drawn from a seed (`chaos`)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from archiver.simulator.faults.behaviours import FAULTS, Asked
from archiver.simulator.faults.chaos import Chaos


@dataclass(frozen=True)
class Match:
    """Conditions of a fault; all that are set must hold. `on="storage"` includes the CDN; `path`: a regular expression
    to find in the path."""

    on: str | None = None
    path: str | None = None
    asset: str | None = None
    type: str | None = None
    method: str | None = None

    def meets(self, asked: Asked) -> bool:
        return (
            (self.on is None or self.on == asked.on or (self.on == "storage" and asked.on == "cdn"))
            and (self.path is None or re.search(self.path, asked.path) is not None)
            and (self.asset is None or self.asset == asked.asset_id)
            and (self.type is None or self.type == asked.asset_type)
            and (self.method is None or self.method == asked.method)
        )


@dataclass
class Fault:
    """A requested fault. `skip`: matching requests to let through first; `times`: how many then meet it (None: all)."""

    id: int
    name: str
    match: Match
    times: int | None
    skip: int
    args: Mapping[str, Any]
    fired: int = 0


class Faults:
    """The faults in force. The one added first has precedence; chaos comes last."""

    def __init__(self, chaos_seed: int | None, chaos_rate: float) -> None:
        self._chaos = Chaos(chaos_seed, chaos_rate)
        self._faults: dict[int, Fault] = {}
        self._revoked: set[str] = set()
        self._ids = count(1)

    @property
    def chaos_seed(self) -> int:
        return self._chaos.seed

    def add(self, name: str, match: Match, times: int | None, skip: int, args: Mapping[str, Any]) -> Fault:
        """Add a fault. Raises ValueError for an unknown fault or argument, or an invalid pattern."""
        if name not in FAULTS:
            raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(FAULTS))}")
        try:
            inspect.signature(FAULTS[name]).bind(None, **args)
            re.compile(match.path or "")
        except (TypeError, re.error) as error:
            raise ValueError(f"fault {name!r}: {error}") from error
        fault = Fault(next(self._ids), name, match, times, skip, dict(args))
        self._faults[fault.id] = fault
        return fault

    def clear(self) -> None:
        """Remove all faults and stop chaos; revoked signatures stay revoked."""
        self._faults.clear()
        self._chaos.stop()

    def all(self) -> list[Fault]:
        return list(self._faults.values())

    def take(self, asked: Asked) -> tuple[str, Mapping[str, Any]] | None:
        """Count and return the name and arguments of the fault this request meets."""
        if asked.signature in self._revoked:
            return "early-expiry", {}
        for fault in self._faults.values():
            if not fault.match.meets(asked) or fault.times == 0:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.fired += 1
            if fault.times is not None:
                fault.times -= 1
            return fault.name, fault.args
        return self._chaos.draw(asked.on, asked.method, asked.path, asked.range)

    def revoke(self, signature: str) -> None:
        self._revoked.add(signature)
