"""Copies that arrived over a connection that brought others, until the engine proves that none was taken for another's.

Nothing of them counts before, and the ledger hears only of those whose ETag is a digest (`copying`): a later attempt
trusts what is recorded, by length and ETag, and two segments may have both in common (nginx makes ETags of time and
length).

To prove costs a request for each connection, over a new one. So it is done at the end of each phase, and on the way
only when so much has arrived that these requests are few beside it: 32 connections for 1,000 objects are 3 in 100. To
record each object at once and prove it before it is trusted would cost a later attempt a read of every one; to prove
every few objects, a TLS handshake for every few. What is lost instead is small and rare: a worker that dies has copied
at most so many objects in vain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar

from archiver.transfer.base import Engine
from storage_backends.base import ObjectKey

PROVE_EVERY = 1000  # objects; fewer of them
PROVE_BYTES = 2 * 2**30  # when they are large: one part each, as larger ones prove themselves

T = TypeVar("T")


class Unproved(Generic[T]):
    """What arrived since the last proof, in order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._arrived: list[tuple[ObjectKey, T]] = []
        self._size_bytes = 0
        self._named: dict[ObjectKey, str] = {}
        self._being_proved: tuple[Future[Mapping[ObjectKey, str]], list[tuple[ObjectKey, T]]] | None = None

    def __bool__(self) -> bool:
        return bool(self._arrived) or self._being_proved is not None

    def prove_meanwhile(self) -> Iterator[tuple[T, str | None]]:
        """Begin to prove what has arrived when that is due, while copies go on; what was begun earlier and has ended is
        given as by `prove`."""
        if self._being_proved is None:
            if len(self._arrived) >= PROVE_EVERY or self._size_bytes >= PROVE_BYTES:
                arrived, self._arrived, self._size_bytes = self._arrived, [], 0
                self._being_proved = self._engine.confirm_soon(), arrived
        elif self._being_proved[0].done():
            yield from self._proved()

    def add(self, key: ObjectKey, size_bytes: int, copy: T) -> None:
        self._arrived.append((key, copy))
        self._size_bytes += size_bytes

    def prove(self) -> Iterator[tuple[T, str | None]]:
        """Each of them with the reason why it is not proved, or None. Copies may be under way meanwhile: one that is
        named as well is given with its reason once it has arrived. Raises what the engine raises."""
        if self._being_proved is not None:
            yield from self._proved()
        self._named.update(self._engine.confirm())
        arrived, self._arrived, self._size_bytes = self._arrived, [], 0
        for key, copy in arrived:
            yield copy, self._named.pop(key, None)

    def _proved(self) -> Iterator[tuple[T, str | None]]:
        assert self._being_proved is not None, "it was begun"
        (future, arrived), self._being_proved = self._being_proved, None
        self._named.update(future.result())
        for key, copy in arrived:
            yield copy, self._named.pop(key, None)
