"""URLs inside the JSON of `EXT-X-SESSION-DATA` (chapters name images), found as spans like those of a playlist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from archiving.contents.playlist import Span

_URL = re.compile(rb'"(?:url|uri|src)"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.)*")', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class JsonUrl:
    span: Span  # with its quotes
    uri: str = field(repr=False)


def json_urls(data: bytes) -> Iterator[JsonUrl]:
    """The strings that a key called url, uri or src has; nothing when `data` is no JSON."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return
    for match in _URL.finditer(data):
        uri = json.loads(match.group(1))
        if uri.isascii() and uri:
            yield JsonUrl(match.span(1), uri)
