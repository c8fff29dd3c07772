"""State of a simulator that survives a restart."""

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
    """`born_seconds`: since 1970, when the ages of a set's assets are 0; the key keeps URLs valid."""

    born_seconds: float = field(default_factory=time.time)
    signing_key_hex: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    shift_seconds: float = 0.0
    additions: list[Addition] = field(default_factory=list)


class StateFile:
    """`simulator.json` in the directory; without one, nothing is kept."""

    def __init__(self, directory: Path | None) -> None:
        self._path = directory / "simulator.json" if directory else None

    def load(self) -> State:
        """Load the state, or save and return a new one. Raises OSError."""
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
    """Replace a file atomically, readable only by this user."""
    beside = path.with_name(f"{path.name}.new")
    beside.touch(mode=0o600)
    beside.write_text(text)
    beside.replace(path)
