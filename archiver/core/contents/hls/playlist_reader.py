"""Read the playlists of one tree: poll unfinished ones, and stop when the source does not respond."""

from __future__ import annotations

from collections.abc import Callable

from archiver.core.contents import sniff
from archiver.core.contents.hls.access import ChildAddress, Node, TreeAccess, check_fetched, first_bytes
from archiver.core.contents.hls.changing_parameters import ChangingParameters
from archiver.core.contents.hls.limits import HlsLimits
from archiver.core.contents.hls.playlist import is_unfinished
from archiver.core.contents.sniff import Kind
from archiver.transfer.documents import Fetched
from archiver.transfer.errors import SourceError, SourceMismatch, SourceUnavailable, UnexpectedContent


class PlaylistReader:
    """Reads playlists of one walk."""

    def __init__(
        self,
        access: TreeAccess,
        changing: ChangingParameters,
        limits: HlsLimits,
        sleep: Callable[[float], None],
    ) -> None:
        self._access = access
        self._changing = changing
        self._limits = limits
        self._sleep = sleep
        self._polls_left = limits.polls
        self._busy_in_a_row = 0

    @property
    def has_given_up(self) -> bool:
        """Return whether `HlsLimits.busy` playlists in a row got no response."""
        return self._busy_in_a_row >= self._limits.busy

    def read(self, node: Node, address: ChildAddress | None) -> Fetched:
        """Read a playlist. Raises SourceError, also for a file that is not one."""
        try:
            fetched = self._access.read(node, address)
        except SourceError as error:
            self._busy_in_a_row = self._busy_in_a_row + 1 if isinstance(error, SourceUnavailable) else 0
            raise
        self._busy_in_a_row = 0
        # no host in a doubt about a child: it changes between attempts
        name = fetched.url.name if address is None else node.file_name
        check_fetched(fetched, sniff.check_for(Kind.PLAYLIST, name))
        return self._changing.compared(node, address, fetched)

    def to_the_end(self, node: Node, address: ChildAddress | None, fetched: Fetched) -> Fetched:
        """Poll a playlist without EXT-X-ENDLIST (RFC 8216, section 4.3.3.4), which may be about to get one."""
        while self._polls_left > 0 and is_unfinished(fetched.body):
            self._polls_left -= 1
            self._sleep(self._limits.poll_every.total_seconds())
            try:
                fetched = self.read(node, address)
            except SourceError:
                break  # keep what was read
        return fetched

    def first_bytes_instead(self, address: ChildAddress, error: SourceError) -> bytes:
        """Return the first bytes of the file found in place of a playlist; empty when it is missing, an error page, or
        a playlist too large to follow."""
        if not isinstance(error, UnexpectedContent) and type(error) is not SourceMismatch:
            return b""
        try:
            start, info = first_bytes(self._access.source(address))
            sniff.check_for(Kind.ANY, "")(start, info)
        except SourceError:
            return b""
        return b"" if sniff.sniff(start) is Kind.PLAYLIST else start
