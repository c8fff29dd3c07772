"""Find query parameters of a tree that change with every signature although they are not known as part of one.

They must not become part of a file's name, or every attempt would store the whole tree under new names. A playlist with
queries of unknown meaning is read again under a new signature, and the two are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from urllib.parse import urlsplit

from archiver.core.contents.hls.access import ChildAddress, Node, TreeAccess
from archiver.core.contents.hls.doubts import is_fetchable
from archiver.core.contents.hls.layout import TreeLayout
from archiver.core.contents.hls.signatures import changing_parameters, part
from archiver.core.errors import BadContents
from archiver.transfer.documents import Fetched
from archiver.transfer.errors import SourceError
from archiver.transfer.urls import SecretUrl


class LearningLayout(TreeLayout):
    """A layout that learns of changing parameters while its tree is walked. Files already placed keep their paths."""

    def learn(self, changing: frozenset[str]) -> None:
        self._changing |= changing


class ChangingParameters:
    """The changing parameters found so far, in `names`. Each parameter is judged once for the master and once for the
    playlists below it: one or two more reads per tree, none without such queries."""

    def __init__(self, access: TreeAccess, max_references: int) -> None:
        self._access = access
        self._max_references = max_references
        self._judged: set[tuple[bool, str]] = set()
        self.names: frozenset[str] = frozenset()

    def compared(self, node: Node, address: ChildAddress | None, fetched: Fetched) -> Fetched:
        """Compare `fetched` with the same playlist under another signature if it has unknown parameters; return the
        newer."""
        if not self._access.children_may_be_signed:
            return fetched
        urls = self._urls(node, address, fetched)
        unknown = {(address is None, name) for url in urls for name in _unknown_parameters(url)}
        if unknown <= self._judged:
            return fetched
        self._judged |= unknown
        try:
            again = self._access.read_resigned(node, address)
        except SourceError:
            return fetched
        self.names |= changing_parameters(
            (url.reveal() for url in urls), (url.reveal() for url in self._urls(node, address, again))
        )
        return again

    def _urls(self, node: Node, address: ChildAddress | None, fetched: Fetched) -> list[SecretUrl]:
        """Return what the playlist names; of the master its own URL too."""
        urls = [fetched.url] if address is None else []
        if b"?" in fetched.body or b"{$" in fetched.body:
            urls += islice(_references(node, fetched), self._max_references)
        return urls


def _references(node: Node, fetched: Fetched) -> Iterator[SecretUrl]:
    """Yield the references that can be parsed; the walk reports the others."""
    with suppress(BadContents):
        for reference in node.parse(fetched).references():
            if is_fetchable(reference):
                with suppress(SourceError):
                    yield fetched.url.join(reference.uri)


def _unknown_parameters(url: SecretUrl) -> set[str]:
    query = urlsplit(url.reveal()).query
    return {each.partition("=")[0] for each in part(query).selects.split("&") if each}
