"""The JSON of EXT-X-SESSION-DATA (RFC 8216, section 4.3.4.4): find the images that chapters name, and rewrite their
URLs."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from archiver.core.contents import sniff
from archiver.core.contents.hls.layout import TreeFile, TreeLayout, new_text, what_changed
from archiver.core.contents.hls.references import Reference, Role, Span, rewrite
from archiver.core.contents.sniff import Kind
from archiver.core.errors import BadContents
from archiver.transfer.base import CHECKED_BYTES, Check
from archiver.transfer.documents import Fetched
from archiver.transfer.errors import SourceError
from archiver.transfer.urls import SecretUrl

_URL = re.compile(rb'"(?:url|uri|src)"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)*")', re.IGNORECASE)
_QUERY = re.compile(rb'https?:(?:\\?/){2}[^\s"?#]*(\?(?:[^\s"\\]|\\/|\\u[0-9a-fA-F]{4})*)', re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class JsonUrl:
    span: Span  # including the quotes
    uri: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionData:
    """The data to store, and the images it names."""

    data: bytes
    rewritten: Mapping[str, object] | None
    images: list[tuple[SecretUrl, TreeFile]]


def without_other_queries(data: bytes, replacements: dict[Span, bytes]) -> None:
    """Remove the query, which may be a credential, of every other URL in `data`, if that is JSON."""
    if not _is_json(data):
        return
    taken = sorted(replacements)
    for match in _QUERY.finditer(data):
        start, end = match.span(1)
        at = bisect.bisect_right(taken, (start, start))
        if at == 0 or taken[at - 1][1] <= start:
            replacements[start, end] = b""


def json_urls(data: bytes) -> Iterator[JsonUrl]:
    """Yield the string values of keys named url, uri or src; nothing if `data` is not JSON."""
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
    """Return the check by extension; without a known one, JSON is checked as JSON, all else only for error pages."""
    looks_like_json = body[:CHECKED_BYTES].removeprefix(_BOM).lstrip()[:1] in (b"{", b"[")
    return sniff.check_for(sniff.kind_of(path) or (Kind.JSON if looks_like_json else Kind.ANY), path)


def with_local_images(fetched: Fetched, file: TreeFile, layout: TreeLayout) -> SessionData:
    """Replace the URLs of images in `fetched` by their paths in the copy. An invalid URL stays, without its query."""
    replacements: dict[Span, bytes] = {}
    images: list[tuple[SecretUrl, TreeFile]] = []
    for found in json_urls(fetched.body):
        try:
            if urlsplit(found.uri).scheme not in ("", "http", "https"):
                continue
            url = fetched.url.join(found.uri)
            image = layout.place(url)
        except (SourceError, BadContents, ValueError):
            continue
        as_reference = Reference(found.span, found.uri, Role.LINK, verbatim=True)
        if (text := new_text(as_reference, file.path, image.path)) is not None:
            replacements[found.span] = json.dumps(text.decode()).encode()
        images.append((url, image))
    without_other_queries(fetched.body, replacements)
    return SessionData(rewrite(fetched.body, replacements), what_changed(fetched.body, replacements), images)
