"""What a simulator with a state directory still knows after a restart."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Addition:
    """An asset that was added while it ran."""

    name: str
    kind: str
    created_seconds: float
    options: dict[str, Any]
    row: dict[str, Any]


@dataclass
class State:
    """`born_seconds`, since 1970, is what the ages of a set's assets count from; the key keeps URLs valid."""

    born_seconds: float = field(default_factory=time.time)
    signing_key_hex: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    shift_seconds: float = 0.0
    additions: list[Addition] = field(default_factory=list)


class StateFile:
    """`simulator.json` in the directory; without a directory, nothing is kept."""

    def __init__(self, directory: Path | None) -> None:
        self._path = directory / "simulator.json" if directory else None

    def load(self) -> State:
        """What was saved, else a new state, saved. Raises OSError."""
        if self._path is not None and self._path.exists():
            saved = json.loads(self._path.read_text())
            return State(**{**saved, "additions": [Addition(**addition) for addition in saved["additions"]]})
        state = State()
        self.save(state)
        return state

    def save(self, state: State) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(asdict(state)))


def write_whole(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, and nobody else on the machine reads it."""
    beside = path.with_name(f"{path.name}.new")
    beside.touch(mode=0o600)
    beside.write_text(text)
    beside.replace(path)
