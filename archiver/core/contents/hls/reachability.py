"""Find out whether anything but the master of a tree can be read. Where its signature covers the master only, this is
decided before the first file is yielded."""

from __future__ import annotations

from collections.abc import Iterator

from archiver.core.contents.base import Item
from archiver.core.contents.hls.access import TreeAccess, first_bytes, signs_one_object
from archiver.core.errors import BadContents, NeedsSourceAccess
from archiver.transfer.errors import SourceError, SourceForbidden, SourceUnavailable

PROBES = 3
"""Files to probe: one refused file is that file's fault; the first three together mean missing access."""


class Reachability:
    """The caller sets `read_a_child` once a playlist below the master was read, `has_media` once media is named."""

    def __init__(self, access: TreeAccess) -> None:
        self._master = access.master.url
        self._signed_alone = signs_one_object(self._master)
        self._probes_left = PROBES if self._signed_alone else 0
        self._held_back: list[Item] = []
        self._failures: list[SourceError] = []
        self.read_a_child = False
        self.has_media = False

    @property
    def decided(self) -> bool:
        """Return whether files need no probe any more."""
        return self.read_a_child or not self._probes_left

    def failed(self, error: SourceError) -> None:
        """Record that a child could not be read."""
        self._failures.append(error)

    def probed(self, item: Item) -> Iterator[Item]:
        """Probe `item`; yield it with those held back before, once one can be read. Raises NeedsSourceAccess."""
        self._held_back.append(item)
        self._probes_left -= 1
        try:
            assert item.source is not None
            first_bytes(item.source)
        except SourceError as error:
            self.failed(error)
        else:
            self.read_a_child = True
        if self.decided:
            yield from self._release()

    def at_the_end(self) -> Iterator[Item]:
        """Yield what is still held back. Raises NeedsSourceAccess, or why there is no media: SourceError,
        BadContents."""
        yield from self._release()
        if self.has_media:
            return
        refused = [error for error in self._failures if isinstance(error, SourceForbidden)]
        if refused and self._signed_alone and not self.read_a_child:
            raise self._needs_access()
        for kind in (SourceUnavailable, SourceForbidden, SourceError):
            if worst := next((error for error in self._failures if isinstance(error, kind)), None):
                raise worst
        raise BadContents(f"{self._master.name} is a playlist that names no media")

    def _release(self) -> Iterator[Item]:
        refused = [isinstance(error, SourceForbidden) for error in self._failures]
        if self._held_back and not self.read_a_child and refused and all(refused):
            raise self._needs_access()
        yield from self._held_back
        self._held_back.clear()

    def _needs_access(self) -> NeedsSourceAccess:
        return NeedsSourceAccess(
            f"only {self._master.name} is signed; what it names answers 403. Credentials for the bucket "
            "that the asset's path names are needed (ARCHIVER_SOURCE_ACCESS), or a VOD upload format of 'zipped' in "
            "the 100ms template"
        )
