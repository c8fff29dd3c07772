"""Checks of one object that let it be stored although it is not what it should be, and remember why.

For the attempt that keeps an asset with its doubts (`core.attempt.doubts`). An error page is refused there too.
"""

from __future__ import annotations

from collections.abc import Callable

from archiver.core.contents.source_failures import in_words
from archiver.transfer.base import Check, SourceInfo, Structure
from archiver.transfer.errors import UnexpectedContent


class Tolerant:
    """What was found wrong with one object; None: nothing. Of use to one copy."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: str | None = None

    def check(self, strict: Check) -> Check:
        """`strict`, but for UnexpectedContent, which is remembered."""

        def tolerant(start: bytes, info: SourceInfo | None) -> None:
            try:
                strict(start, info)
            except UnexpectedContent as error:
                self.remember(error)

        return tolerant

    def remember(self, error: UnexpectedContent) -> None:
        """The first of them is what a strict attempt says, too."""
        self.found = self.found or in_words(error)


class TolerantStructure:
    """`transfer.base.Structure` that remembers what is wrong instead of raising UnexpectedContent."""

    def __init__(self, strict: Structure, into: Tolerant) -> None:
        self._strict = strict
        self._into = into

    @property
    def proves_end(self) -> bool:
        return self._strict.proves_end

    def saw(self, start: int, data: memoryview) -> None:
        self._strict.saw(start, data)

    def finish(self, size_bytes: int, read: Callable[[int, memoryview], None] | None) -> None:
        try:
            self._strict.finish(size_bytes, read)
        except UnexpectedContent as error:
            self._into.remember(error)
