"""Checks of one object that record what is wrong with it instead of raising, so that it is stored with a doubt.

For the attempt that stores an asset with its doubts (`core.attempt.doubts`). Error pages still raise.
"""

from __future__ import annotations

from collections.abc import Callable

from archiver.core.contents.source_failures import in_words
from archiver.transfer.base import Check, SourceInfo, Structure
from archiver.transfer.errors import UnexpectedContent


class Tolerant:
    """What was `found` wrong with one object; None: nothing. For one copy."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: str | None = None

    def check(self, strict: Check) -> Check:
        """Return `strict` with UnexpectedContent recorded instead of raised."""

        def tolerant(start: bytes, info: SourceInfo | None) -> None:
            try:
                strict(start, info)
            except UnexpectedContent as error:
                self.remember(error)

        return tolerant

    def remember(self, error: UnexpectedContent) -> None:
        """Record `error`, unless an earlier one was: a strict attempt would have raised that one."""
        self.found = self.found or in_words(error)


class TolerantStructure:
    """A `transfer.base.Structure` that records UnexpectedContent instead of raising it."""

    def __init__(self, strict: Structure, into: Tolerant) -> None:
        self._strict = strict
        self._into = into

    @property
    def verifies_end(self) -> bool:
        return self._strict.verifies_end

    def saw(self, start: int, data: memoryview) -> None:
        self._strict.saw(start, data)

    def finish(self, size_bytes: int, read: Callable[[int, memoryview], None] | None) -> None:
        try:
            self._strict.finish(size_bytes, read)
        except UnexpectedContent as error:
            self._into.remember(error)
