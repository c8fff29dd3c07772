"""The variables of a playlist (EXT-X-DEFINE, draft-pantos-hls-rfc8216bis), and which values may be credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qs

from archiver.core.contents.hls.references import Span
from archiver.core.errors import BadContents

# Real playlists have a few short ones; without bounds a few kB of text could expand beyond any memory.
MAX_URI_BYTES = 64 * 1024
MAX_DEFINITIONS = 1000
MAX_NESTED_BYTES = 4096  # of a value with other variables in it

_VARIABLE = re.compile(rb"\{\$([A-Za-z0-9_-]+)\}")
_WORD = re.compile(rb"[^\s\"'<>]+")
_PLAIN_PATH = re.compile(rb"[A-Za-z0-9._~/ -]{1,200}")


class FromQuery(bytes):
    """A value taken from the query of the playlist's URL (QUERYPARAM)."""


class Variables:
    """The variables of one playlist, in `values`. `inherited`: those of the multivariant playlist, for IMPORT; `query`:
    of the playlist's own URL, for QUERYPARAM."""

    def __init__(self, inherited: Mapping[bytes, bytes], query: str) -> None:
        self.values: dict[bytes, bytes] = {}
        self.used_in_queries: set[bytes] = set()
        self._used_elsewhere: set[bytes] = set()
        self._inherited = inherited
        self._query = query
        self._count = 0
        self._written: list[tuple[bytes, bytes, Span]] = []  # name, text of its VALUE, where that stands
        self._made_of: dict[bytes, set[bytes]] = {}  # variables in the value of a variable

    def count(self) -> None:
        """Count a definition. Raises BadContents when there are too many."""
        self._count += 1
        if self._count > MAX_DEFINITIONS:
            raise BadContents(f"the playlist defines more than {MAX_DEFINITIONS} variables")

    def define(self, name: bytes, text: bytes, span: Span) -> None:
        """Define by NAME and VALUE. A value may use other variables, as in hls.js."""
        self._written.append((name, text, span))
        used = {match.group(1) for match in _VARIABLE.finditer(text)}
        if used and used <= self.values.keys():
            from_query = any(isinstance(self.values[each], FromQuery) for each in used)
            expanded = self.expand(text, MAX_NESTED_BYTES)
            text = FromQuery(expanded) if from_query else expanded
            self._made_of.setdefault(name, set()).update(used)
        self.values[name] = text

    def inherit(self, name: bytes) -> None:
        """Define by IMPORT."""
        if name in self._inherited:
            self.values[name] = self._inherited[name]

    def take_from_query(self, name: bytes) -> None:
        """Define by QUERYPARAM."""
        found = parse_qs(self._query, keep_blank_values=True).get(name.decode("utf-8", "replace"))
        if found:
            self.values[name] = FromQuery(found[0].encode())

    def expand(self, text: bytes, max_bytes: int = MAX_URI_BYTES) -> bytes:
        """Substitute the variables in `text`. Raises BadContents for an undefined one, and when the result is too
        long."""
        names = (match.group(1) for match in _VARIABLE.finditer(text))
        if len(text) + sum(len(self.values.get(name, b"")) for name in names) > max_bytes:
            raise BadContents(f"a text of the playlist expands to more than {max_bytes} bytes")

        def value(match: re.Match[bytes]) -> bytes:
            try:
                return self.values[match.group(1)]
            except KeyError:
                name = match.group(1).decode()
                raise BadContents(f"the playlist uses a variable {name!r} that it does not define") from None

        return _VARIABLE.sub(value, text)

    def parameters_from_query(self, uri: bytes) -> list[bytes]:
        """Return the query parameters of `uri`, as written, with a value from the playlist's own query. All variables
        must be defined."""

        def marked(match: re.Match[bytes]) -> bytes:
            value = self.values[match.group(1)]
            return b"\0" + value.replace(b"&", b"&\0") if isinstance(value, FromQuery) else value

        query = _VARIABLE.sub(marked, uri).partition(b"#")[0].partition(b"?")[2]
        return [each.partition(b"=")[0].replace(b"\0", b"") for each in query.split(b"&") if b"\0" in each]

    def note_uses(self, text: bytes, *, counts_as_kept: bool = True) -> None:
        """Record which variables `text` uses after a `?`, and which elsewhere. `counts_as_kept`: use elsewhere shows
        that the value is not secret."""
        for word in _WORD.finditer(text):
            *pairs, _ = _VARIABLE.split(word.group())
            in_query = False
            for literal, name in zip(pairs[::2], pairs[1::2], strict=True):
                in_query = in_query or b"?" in literal
                if in_query:
                    self.used_in_queries.add(name)
                elif counts_as_kept:
                    self._used_elsewhere.add(name)
                in_query = in_query or b"?" in self.values.get(name, b"")

    def secret_values(self, *, is_master: bool) -> list[Span]:
        """Return the spans of values that may be credentials: used in a query, or holding a query or a host.

        Variables of a multivariant playlist may be used in the queries of its children. Of these only values are not
        secret that the playlist itself uses, never in a query, and that look like a path or name.
        """
        secret: set[bytes] = set()
        waiting = list(self.used_in_queries)
        while waiting:
            name = waiting.pop()
            if name not in secret:
                secret.add(name)
                waiting += self._made_of.get(name, ())
        return [
            span
            for name, text, span in self._written
            if name in secret
            or any(mark in text for mark in (b"=", b"?", b"://"))
            or (is_master and not (name in self._used_elsewhere and _PLAIN_PATH.fullmatch(text)))
        ]
