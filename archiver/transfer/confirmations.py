"""Confirm that no response was taken for another request's.

On a kept connection a response too many (a proxy that answers twice, a late duplicate) shifts all that follow by one,
and nothing in them shows it. The shift lasts until the connection ends. So:

- The first response on a connection is certainly that of its first request.
- A response whose Content-Range could only be that of its own request, for no other on these connections asked for the
  same, confirms itself and all before it on its connection: the parts of large files.
- For the rest, before the asset is committed, the last of them on each connection is read again over a new connection.
  When it is the same, all were right. When it differs, or cannot be read, none of them is confirmed, and the connection
  is not used again.

A file that was redirected to came over several connections, each of which has to be right.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from archiver.http.connections import Connection
from archiver.http.runtime import Runs
from archiver.http.transfer import Transfer
from archiver.retry_policy import RetryPolicy
from archiver.transfer.errors import SourceError, SourceUnavailable
from archiver.transfer.tasks import gather
from storage_backends.base import ObjectKey

ReadAgain = Callable[[], Awaitable[int]]
"""The CRC32C of the same bytes, asked for over a new connection. Raises SourceError."""

MORE_CAME = "more came over its connection than was asked for"
UNREADABLE = "the last file that came over its connection could not be read again"
ANOTHER = "the last file that came over its connection is another one when it is read again"

_AT_ONCE = 16


@dataclass(slots=True)
class _Unconfirmed:
    """What one connection brought since the last confirmation."""

    keys: set[ObjectKey] = field(default_factory=set)
    ordinal: int = -1  # of the last
    crc32c: int = 0
    read_again: ReadAgain | None = None


class Confirmations:
    """The unconfirmed responses of one engine's connections. Used in the engine's thread only."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._unconfirmed: dict[Connection | Transfer, _Unconfirmed] = {}
        self._asked: set[tuple[int, int, int | None]] = set()

    def ask(self, start: int, size_bytes: int, total_bytes: int | None) -> bool:
        """A range is about to be asked for: whether it is the first of its kind. One from the start never is: it may be
        that of a first request, which did not know the length."""
        wanted = (start, size_bytes, total_bytes)
        if not start or wanted in self._asked:
            return False
        self._asked.add(wanted)
        return True

    def confirmed(self, transfer: Transfer) -> None:
        """The response can only be that of its own request."""
        connection = transfer.connection
        if connection is None or connection.tainted:
            return
        unconfirmed = self._unconfirmed.get(connection)
        if unconfirmed is not None and unconfirmed.ordinal < transfer.ordinal:
            del self._unconfirmed[connection]

    def arrived(
        self, transfers: Sequence[Transfer], key: ObjectKey, crc32c: int, read_again: ReadAgain
    ) -> None:
        """Bytes of the object `key` arrived; each response that led to them could be that of another request."""
        for transfer in transfers:
            if transfer.ordinal == 1:
                continue
            # one that did not come to its end is not counted on its connection: it stands for itself
            brought_by = transfer.connection if transfer.connection and transfer.ordinal else transfer
            unconfirmed = self._unconfirmed.setdefault(brought_by, _Unconfirmed())
            unconfirmed.keys.add(key)
            if transfer.ordinal > unconfirmed.ordinal:
                unconfirmed.ordinal, unconfirmed.crc32c, unconfirmed.read_again = (
                    transfer.ordinal,
                    crc32c,
                    read_again,
                )

    @property
    def any_waiting(self) -> bool:
        """Return whether anything is to be confirmed of the copies that have ended. In any thread."""
        return bool(self._unconfirmed)

    async def confirm(self, runs: Runs) -> dict[ObjectKey, str]:
        """Read again what has to be. Return, by key, why what arrived for it may be another object's; everything else
        is confirmed."""
        condemned: dict[ObjectKey, str] = {}
        waiting = iter(list(self._unconfirmed.items()))
        self._unconfirmed.clear()

        async def some(those: Iterator[tuple[Connection | Transfer, _Unconfirmed]]) -> None:
            for brought_by, unconfirmed in those:
                why = await self._doubt(brought_by, unconfirmed)
                if why is not None:
                    condemned.update(dict.fromkeys(unconfirmed.keys, why))
                    if isinstance(brought_by, Connection):
                        brought_by.condemned = True

        await gather(runs, [some(waiting) for _ in range(_AT_ONCE)])
        return condemned

    async def _doubt(self, brought_by: Connection | Transfer, unconfirmed: _Unconfirmed) -> str | None:
        if isinstance(brought_by, Connection) and brought_by.tainted:
            return MORE_CAME
        assert unconfirmed.read_again is not None, "the first of them sets it"
        try:
            crc = await self._policy.run(
                unconfirmed.read_again, lambda error: isinstance(error, SourceUnavailable)
            )
        except SourceError:  # which names another file at each attempt
            return UNREADABLE
        return None if crc == unconfirmed.crc32c else ANOTHER
