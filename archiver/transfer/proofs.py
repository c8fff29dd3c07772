"""Proof that no response was taken for another request's.

On a kept connection a response too many (a proxy that answers twice, a late duplicate) shifts all that follow by one,
and nothing in them shows it. The shift lasts until the connection ends. So:

- The first response on a connection is certainly that of its first request.
- A response whose Content-Range could only be that of its own request, for no other on these connections asked for the
  same, proves itself and all before it on its connection: the parts of large files.
- For the rest, before the asset is committed, the last of them on each connection is read again over a new connection.
  When it is the same, all were right. When it differs, or cannot be read, none of them is proved, and nothing follows
  on the connection.

A file that was redirected to came over several connections, each of which has to be right.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from archiver.http.connections import Connection
from archiver.http.transfer import Transfer
from archiver.retry_policy import RetryPolicy
from archiver.transfer.errors import SourceError, SourceUnavailable
from archiver.transfer.tasks import Runs, gather
from storage_backends.base import ObjectKey

ReadAgain = Callable[[], Awaitable[int]]
"""The CRC32C of the same bytes, asked for over a new connection. Raises SourceError."""

MORE_CAME = "more came over its connection than was asked for"
UNREADABLE = "the last file that came over its connection could not be read again"
ANOTHER = "the last file that came over its connection is another one when it is read again"

_AT_ONCE = 16


@dataclass(slots=True)
class _Unproved:
    """What one connection brought since the last proof."""

    keys: set[ObjectKey] = field(default_factory=set)
    ordinal: int = -1  # of the last
    crc32c: int = 0
    read_again: ReadAgain | None = None


class Proofs:
    """Those of one engine's connections. In the engine's thread."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._unproved: dict[Connection | Transfer, _Unproved] = {}
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
        connection = transfer.connection
        if connection is None or connection.tainted:
            return
        unproved = self._unproved.get(connection)
        if unproved is not None and unproved.ordinal < transfer.ordinal:
            del self._unproved[connection]

    def arrived(
        self, transfers: Sequence[Transfer], key: ObjectKey, crc32c: int, read_again: ReadAgain
    ) -> None:
        """Bytes of the object `key` arrived; each response that led to them could be that of another request."""
        for transfer in transfers:
            if transfer.ordinal == 1:
                continue
            # one that did not come to its end is not counted on its connection: it stands for itself
            brought_by = transfer.connection if transfer.connection and transfer.ordinal else transfer
            unproved = self._unproved.setdefault(brought_by, _Unproved())
            unproved.keys.add(key)
            if transfer.ordinal > unproved.ordinal:
                unproved.ordinal, unproved.crc32c, unproved.read_again = transfer.ordinal, crc32c, read_again

    @property
    def any_waiting(self) -> bool:
        """Whether anything is to be proved of the copies that have ended. In any thread."""
        return bool(self._unproved)

    async def confirm(self, runs: Runs) -> dict[ObjectKey, str]:
        """Read again what has to be. By key, why what arrived for it may be another object's. Everything else is proved
        from here on."""
        condemned: dict[ObjectKey, str] = {}
        waiting = iter(list(self._unproved.items()))
        self._unproved.clear()

        async def some(those: Iterator[tuple[Connection | Transfer, _Unproved]]) -> None:
            for brought_by, unproved in those:
                why = await self._doubt(brought_by, unproved)
                if why is not None:
                    condemned.update(dict.fromkeys(unproved.keys, why))
                    if isinstance(brought_by, Connection):
                        brought_by.condemned = True

        await gather(runs, [some(waiting) for _ in range(_AT_ONCE)])
        return condemned

    async def _doubt(self, brought_by: Connection | Transfer, unproved: _Unproved) -> str | None:
        if isinstance(brought_by, Connection) and brought_by.tainted:
            return MORE_CAME
        assert unproved.read_again is not None, "the first of them sets it"
        try:
            crc = await self._policy.run(
                unproved.read_again, lambda error: isinstance(error, SourceUnavailable)
            )
        except SourceError:  # which names another file at each attempt
            return UNREADABLE
        return None if crc == unproved.crc32c else ANOTHER
