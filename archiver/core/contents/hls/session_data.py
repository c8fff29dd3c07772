"""The JSON of `EXT-X-SESSION-DATA`: chapters name images, found as spans like the references of a playlist."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from archiver.core.contents import sniff
from archiver.core.contents.hls.layout import Place, TreeLayout, new_text, what_changed
from archiver.core.contents.hls.playlist import Reference, Role, Span, rewrite
from archiver.core.contents.sniff import Kind
from archiver.core.errors import BadContents
from archiver.transfer.base import CHECKED_BYTES, Check
from archiver.transfer.errors import SourceError
from archiver.transfer.source import Fetched, SecretUrl

_URL = re.compile(rb'"(?:url|uri|src)"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)*")', re.IGNORECASE)
_QUERY = re.compile(rb'https?:(?:\\?/){2}[^\s"?#]*(\?(?:[^\s"\\]|\\/|\\u[0-9a-fA-F]{4})*)', re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class JsonUrl:
    span: Span  # with its quotes
    uri: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionData:
    """What to store, and the images that it names."""

    data: bytes
    rewritten: Mapping[str, object] | None
    images: list[tuple[SecretUrl, Place]]


def without_other_queries(data: bytes, replacements: dict[Span, bytes]) -> None:
    """Cut the query, which may be a credential, out of every other URL in `data`, if that is JSON."""
    if not _is_json(data):
        return
    taken = sorted(replacements)
    for match in _QUERY.finditer(data):
        start, end = match.span(1)
        at = bisect.bisect_right(taken, (start, start))
        if at == 0 or taken[at - 1][1] <= start:
            replacements[start, end] = b""


def json_urls(data: bytes) -> Iterator[JsonUrl]:
    """The strings that a key called url, uri or src has; nothing when `data` is no JSON."""
    if not _is_json(data):
        return
    for match in _URL.finditer(data):
        uri = json.loads(match.group(1))
        if uri.isascii() and uri:
            yield JsonUrl(match.span(1), uri)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def check_of_session_data(path: str, body: bytes) -> Check:
    """By its name; without one that says something, JSON is checked as JSON and all else for error pages alone."""
    looks_like_json = body[:CHECKED_BYTES].removeprefix(_BOM).lstrip()[:1] in (b"{", b"[")
    return sniff.check_for(sniff.kind_of(path) or (Kind.JSON if looks_like_json else Kind.ANY), path)


def with_local_images(fetched: Fetched, place: Place, layout: TreeLayout) -> SessionData:
    """`fetched` with the URLs of its images replaced by where they lie in the copy. One that cannot be an address
    stays as it is, but for its query."""
    replacements: dict[Span, bytes] = {}
    images: list[tuple[SecretUrl, Place]] = []
    for found in json_urls(fetched.body):
        try:
            if urlsplit(found.uri).scheme not in ("", "http", "https"):
                continue
            url = fetched.url.join(found.uri)
            image = layout.place(url)
        except (SourceError, BadContents, ValueError):
            continue
        as_reference = Reference(found.span, found.uri, Role.LINK, verbatim=True)
        if (text := new_text(as_reference, place.path, image.path)) is not None:
            replacements[found.span] = json.dumps(text.decode()).encode()
        images.append((url, image))
    without_other_queries(fetched.body, replacements)
    return SessionData(rewrite(fetched.body, replacements), what_changed(fetched.body, replacements), images)
