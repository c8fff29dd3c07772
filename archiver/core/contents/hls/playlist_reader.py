"""How the playlists of one tree are read: each to its end, and as few in vain as possible."""

from __future__ import annotations

from collections.abc import Callable

from archiver.core.contents import sniff
from archiver.core.contents.hls.access import ChildAddress, Node, TreeAccess, check_fetched, start_of
from archiver.core.contents.hls.limits import HlsLimits
from archiver.core.contents.hls.playlist import is_unfinished
from archiver.core.contents.hls.signings import Signings
from archiver.core.contents.sniff import Kind
from archiver.transfer.errors import SourceError, SourceMismatch, SourceUnavailable, UnexpectedContent
from archiver.transfer.source import Fetched


class PlaylistReader:
    def __init__(
        self, access: TreeAccess, signings: Signings, limits: HlsLimits, sleep: Callable[[float], None]
    ) -> None:
        self._access = access
        self._signings = signings
        self._limits = limits
        self._sleep = sleep
        self._polls_left = limits.polls
        self._busy_in_a_row = 0

    @property
    def has_given_up(self) -> bool:
        """Whether so many playlists in a row were not answered that no other is asked for."""
        return self._busy_in_a_row >= self._limits.busy

    def read(self, node: Node, address: ChildAddress | None) -> Fetched:
        """Raises SourceError, also for what is no playlist."""
        try:
            fetched = self._access.read(node, address)
        except SourceError as error:
            self._busy_in_a_row = self._busy_in_a_row + 1 if isinstance(error, SourceUnavailable) else 0
            raise
        self._busy_in_a_row = 0
        # of a child, whose words become a doubt, no host: it changes from attempt to attempt
        name = fetched.url.name if address is None else node.file_name
        check_fetched(fetched, sniff.check_for(Kind.PLAYLIST, name))
        return self._signings.compared(node, address, fetched)

    def to_the_end(self, node: Node, address: ChildAddress | None, fetched: Fetched) -> Fetched:
        """A playlist without ENDLIST may be about to get one: it is asked for again a few times."""
        while self._polls_left > 0 and is_unfinished(fetched.body):
            self._polls_left -= 1
            self._sleep(self._limits.poll_every.total_seconds())
            try:
                fetched = self.read(node, address)
            except SourceError:
                break  # what was read is still the best there is
        return fetched

    def start_of_what_is_there_instead(self, address: ChildAddress, error: SourceError) -> bytes:
        """Of the file that was read in place of a playlist; empty for nothing, an error answer, or a playlist that is
        too large to follow."""
        if not isinstance(error, UnexpectedContent) and type(error) is not SourceMismatch:
            return b""
        try:
            start, info = start_of(self._access.source(address))
            sniff.check_for(Kind.ANY, "")(start, info)
        except SourceError:
            return b""
        return b"" if sniff.sniff(start) is Kind.PLAYLIST else start
