"""A process that ends at a chosen call to what outlives it: the ledger and the stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class KilledHere(BaseException):
    """What kill -9 looks like from within: nothing after it happens."""


class Life:
    """Ends at the call of that number to anything that outlives the process, before or after it took effect."""

    def __init__(self, calls: int, *, after: bool) -> None:
        self.calls_left = calls
        self.after = after

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls_left -= 1
        if self.calls_left < 0 or (self.calls_left == 0 and not self.after):
            raise KilledHere
        result = method(*args, **kwargs)
        if self.calls_left == 0:
            raise KilledHere
        return result


class Interrupted(Life):
    """Does something else before the call of that number, and lives on."""

    def __init__(self, calls: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(calls, after=False)
        self.meanwhile = meanwhile

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls_left -= 1
        if self.calls_left == 0:
            self.meanwhile()
        return method(*args, **kwargs)


class Mortal:
    """`inner` as the process sees it while it lives. `mortal`: the calls that count; None: every method."""

    def __init__(self, inner: Any, life: Life, mortal: frozenset[str] | None = None) -> None:
        self._inner, self._life, self._mortal = inner, life, mortal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._mortal if self._mortal is not None else not callable(found):
            return found
        return lambda *args, **kwargs: self._life.call(found, *args, **kwargs)
