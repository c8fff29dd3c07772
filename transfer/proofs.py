"""Proof that no response was taken for another request's.

On a kept connection a response too many (a proxy that answers twice, a late duplicate) shifts all that follow by one,
and nothing in them shows it. The shift lasts until the connection ends. So:

- The first response on a connection is certainly that of its first request.
- A response whose Content-Range could only be that of its own request, for no other on these connections asked for the
  same, proves itself and all before it on its connection: the parts of large files.
- For the rest, before the asset is committed, the last of them on each connection is read again over a new connection.
  When it is the same, all were right. When it differs, or cannot be read, none of them is proved.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from archiver.http.connections import Connection
from archiver.http.transfer import Transfer
from storage_backends.base import ObjectKey
from transfer.errors import SourceError
from transfer.tasks import Runs, gather

ReadAgain = Callable[[], Awaitable[int]]
"""The CRC32C of the same bytes, asked for over a new connection. Raises SourceError."""

_AT_ONCE = 8


@dataclass(slots=True)
class _Unproved:
    keys: list[ObjectKey] = field(default_factory=list)
    crc32c: int = 0  # of the last
    read_again: ReadAgain | None = None


class Proofs:
    """Those of one engine's connections. In the engine's thread."""

    def __init__(self) -> None:
        self._unproved: dict[Connection, _Unproved] = {}
        self._asked: set[tuple[int, int, int | None]] = set()

    def ask(self, start: int, size_bytes: int, total_bytes: int | None) -> bool:
        """A range is about to be asked for: whether it is the first of its kind."""
        wanted = (start, size_bytes, total_bytes)
        if wanted in self._asked:
            return False
        self._asked.add(wanted)
        return True

    def proved(self, transfer: Transfer) -> None:
        """The response can only be that of its own request."""
        if transfer.connection is not None and not transfer.connection.tainted:
            self._unproved.pop(transfer.connection, None)

    def arrived(self, transfer: Transfer, key: ObjectKey, crc32c: int, read_again: ReadAgain) -> None:
        """A response for the object `key` arrived, which could be that of another request."""
        connection = transfer.connection
        if connection is None or transfer.ordinal == 1:
            return
        unproved = self._unproved.setdefault(connection, _Unproved())
        unproved.keys.append(key)
        unproved.crc32c, unproved.read_again = crc32c, read_again

    async def confirm(self, runs: Runs) -> dict[ObjectKey, str]:
        """Read again what has to be. By key, why what arrived for it may be another object's. Everything else is proved
        from here on."""
        condemned: dict[ObjectKey, str] = {}
        waiting = iter(list(self._unproved.items()))
        self._unproved.clear()

        async def some(those: Iterator[tuple[Connection, _Unproved]]) -> None:
            for connection, unproved in those:
                why = await _doubt(connection, unproved)
                if why is not None:
                    condemned.update(dict.fromkeys(unproved.keys, why))

        await gather(runs, [some(waiting) for _ in range(_AT_ONCE)])
        return condemned


async def _doubt(connection: Connection, unproved: _Unproved) -> str | None:
    if connection.tainted:
        return "more came over its connection than was asked for"
    assert unproved.read_again is not None
    try:
        crc = await unproved.read_again()
    except SourceError as error:
        return f"the last file that came over its connection could not be read again: {error}"
    if crc != unproved.crc32c:
        return "the last file that came over its connection is another one when it is read again"
    return None
