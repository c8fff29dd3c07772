"""Copies that came over a reused connection, until the engine confirms that each is its own request's response.

Nothing of them counts before, and the ledger hears only of those whose ETag is a digest (`copying`): a later attempt
trusts what is recorded, by length and ETag, and two segments may have both in common (nginx makes ETags of time and
length).

Confirming costs one request per connection, over a new one. So it is done at the end of each phase, and before that
only when so much has arrived that these requests are few beside it: 32 connections for 1,000 objects are 3 in 100.
Recording each object at once would cost a later attempt a read of every one; confirming every few objects, a TLS
handshake for every few. Instead a worker that dies has copied at most CONFIRM_EVERY objects in vain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

from archiver.transfer.base import Engine
from storage_backends.base import ObjectKey

CONFIRM_EVERY = 1000  # objects; fewer of them
CONFIRM_BYTES = 2 * 2**30  # when they are large: one part each, as larger ones confirm themselves

T = TypeVar("T")


class Unconfirmed(Generic[T]):
    """What arrived since the last confirmation, in order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._arrived: list[tuple[ObjectKey, T]] = []
        self._size_bytes = 0
        self._named: dict[ObjectKey, str] = {}
        self._being_confirmed: tuple[Future[Mapping[ObjectKey, str]], list[tuple[ObjectKey, T]]] | None = None

    def __bool__(self) -> bool:
        return bool(self._arrived) or self._being_confirmed is not None

    def confirm_meanwhile(self) -> Iterator[tuple[T, str | None]]:
        """Start confirming what has arrived when that is due, while copies are in flight. Yield what an earlier start
        has confirmed, as `confirm` does."""
        if self._being_confirmed is None:
            if len(self._arrived) >= CONFIRM_EVERY or self._size_bytes >= CONFIRM_BYTES:
                arrived, self._arrived, self._size_bytes = self._arrived, [], 0
                self._being_confirmed = self._engine.confirm_soon(), arrived
        elif self._being_confirmed[0].done():
            yield from self._confirmed()

    def add(self, key: ObjectKey, size_bytes: int, copy: T) -> None:
        self._arrived.append((key, copy))
        self._size_bytes += size_bytes

    def confirm(self) -> Iterator[tuple[T, str | None]]:
        """Each of them with the reason why it is not confirmed, or None. Copies may be under way meanwhile: one that is
        named as well is given with its reason once it has arrived. Raises what the engine raises."""
        if self._being_confirmed is not None:
            yield from self._confirmed()
        self._named.update(self._engine.confirm())
        arrived, self._arrived, self._size_bytes = self._arrived, [], 0
        for key, copy in arrived:
            yield copy, self._named.pop(key, None)

    def _confirmed(self) -> Iterator[tuple[T, str | None]]:
        assert self._being_confirmed is not None, "it was begun"
        (future, arrived), self._being_confirmed = self._being_confirmed, None
        self._named.update(future.result())
        for key, copy in arrived:
            yield copy, self._named.pop(key, None)
