"""Find queries and passwords of URLs in text that is kept: comments, titles and unknown tags.

They may be credentials, and everyone who may read the bucket sees the copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from archiver.core.contents.hls.references import Span
from archiver.core.contents.hls.signatures import looks_secret

SUSPECT = re.compile(rb"\?|//[^\s\"'<>/?#@]*@")
"""Required in a text for `credential_spans` to find anything."""

_RUN = re.compile(rb'"([^"]*)"?|[^\s"]+')
_TOKEN = re.compile(rb"[^\s'<>]+")
_URI_ATTRIBUTE = re.compile(rb"(?:UR[IL]|HREF|SRC|LIST|LINK)S?=\Z", re.IGNORECASE)
_PARAMETER = re.compile(rb"\?[^?&=]*=")
_NEXT_IN_QUOTES = re.compile(rb",[A-Za-z][A-Za-z0-9+.-]{0,20}://")
_NEXT = re.compile(rb",(?:[A-Za-z][A-Za-z0-9+.-]{0,20}://|[A-Za-z0-9-]{1,60}=)")
_USER_INFO = re.compile(rb"//([^/?#@]+@)")
_MAX_QUERY_BYTES = 4096  # of which the names of the parameters are looked at


def credential_spans(data: bytes, start: int, end: int, *, in_tag: bool) -> Iterator[Span]:
    """Yield where in a line a query, with its `?`, or `user:password@` stands, in order, without overlaps.

    A query ends at a blank, a quote, or a comma before another attribute or URL. In a URL with a host every query
    counts; in a relative one `?name=value` in a tag, and elsewhere only what looks like a signature."""
    names_a_uri = False
    for run in _RUN.finditer(data, start, end):
        in_quotes = run.group(1) is not None
        low, high = run.span(1) if in_quotes else run.span()
        if SUSPECT.search(data, low, high):
            for token in _TOKEN.finditer(data, low, high):
                yield from _in_token(data, *token.span(), in_quotes, in_tag, in_quotes and names_a_uri)
        names_a_uri = in_tag and not in_quotes and bool(_URI_ATTRIBUTE.search(data, max(low, high - 9), high))


def _in_token(
    data: bytes, start: int, end: int, in_quotes: bool, in_tag: bool, names_a_uri: bool
) -> Iterator[Span]:
    at = start
    while (mark := data.find(b"?", at, end)) >= 0:
        yield from _user_infos(data, at, mark)
        if not _is_query(data, at, mark, end, in_tag, names_a_uri):
            at = mark + 1
            continue
        following = (_NEXT_IN_QUOTES if in_quotes else _NEXT).search(data, mark, end)
        at = following.start() if following else end
        yield mark, at
    yield from _user_infos(data, at, end)


def _is_query(data: bytes, start: int, mark: int, end: int, in_tag: bool, names_a_uri: bool) -> bool:
    if mark + 1 == end:
        return False
    if names_a_uri or data.find(b"//", start, mark) >= 0:
        return True
    if not _PARAMETER.match(data, mark, min(end, mark + _MAX_QUERY_BYTES)):
        return False
    return in_tag or looks_secret(data[mark + 1 : min(end, mark + _MAX_QUERY_BYTES)].decode("latin-1"))


def _user_infos(data: bytes, start: int, end: int) -> Iterator[Span]:
    for match in _USER_INFO.finditer(data, start, end):
        yield match.span(1)
