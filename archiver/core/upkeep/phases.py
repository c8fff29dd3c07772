"""How far a long piece of work is, for who watches it."""

from __future__ import annotations

from typing import Protocol


class OnProgress(Protocol):
    """Called now and then with the phase of the work, how many of its things are done, of how many (None: not known),
    and how many bytes were read for it."""

    def __call__(
        self, phase: str, done: int = 0, total: int | None = None, /, *, size_bytes: int = 0
    ) -> None: ...


def ignore_progress(
    _phase: str, _done: int = 0, _total: int | None = None, /, *, size_bytes: int = 0
) -> None:
    """Nobody watches: do nothing."""
