"""Response heads: status, headers, and how the body is framed (RFC 9112, section 6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archiver.http.errors import InvalidResponse

_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?")
_NO_BODY = frozenset({204, 304})


class Headers:
    """Headers of a response, which are given in any case and asked for in lower case. A name may come several times
    (`Set-Cookie`). `get` is the first value of a name, or None."""

    __slots__ = ("_more", "get")

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        first = {name.lower(): value for name, value in reversed(fields)}
        self.get: Callable[[str], str | None] = first.get  # itself: a dozen are asked for of each response
        self._more = fields if len(first) < len(fields) else ()

    def all(self, name: str) -> list[str]:
        if self._more:
            return [value for other, value in self._more if other.lower() == name]
        value = self.get(name)
        return [] if value is None else [value]


@dataclass(frozen=True, slots=True)
class Head:
    status: int
    headers: Headers
    length_bytes: int | None  # Content-Length of the body; None: chunked, or until the connection closes
    chunked: bool
    ambiguous: bool  # both framings: an intermediary may have followed the other one

    @property
    def framed(self) -> bool:
        """Whether the end of the body shows. Otherwise it is where the connection closes, as it is after a cut."""
        return self.chunked or self.length_bytes is not None


def parse_head(lines: Sequence[bytes]) -> Head | None:
    """The last head in `lines`, each as libcurl gives it, status lines and empty lines included. None when that is an
    informational one (1xx). Raises InvalidResponse."""
    begin = len(lines) - 1
    while begin > 0 and not lines[begin].startswith(b"HTTP/"):
        begin -= 1
    if begin < 0:
        raise InvalidResponse("no response head came")
    status_line = _STATUS_LINE.fullmatch(lines[begin].decode("latin-1").rstrip("\r\n"))
    if status_line is None:
        raise InvalidResponse("what came is not an HTTP/1.x response")
    status = int(status_line[1])
    if status < 200:
        return None
    fields: list[tuple[str, str]] = []
    for line in lines[begin + 1 :]:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            fields.append((name, value.strip(" \t\r\n")))
        elif name.strip("\r\n"):
            raise InvalidResponse("a header line of the response is malformed")
    headers = Headers(fields)
    coding = headers.get("transfer-encoding")
    chunked = coding is not None and coding.strip().lower() == "chunked"
    if coding is not None and not chunked:
        raise InvalidResponse("the response has a transfer encoding other than chunked")
    length = _length(headers)
    if status in _NO_BODY:
        return Head(status, headers, 0, chunked=False, ambiguous=False)
    return Head(status, headers, None if chunked else length, chunked, chunked and length is not None)


def _length(headers: Headers) -> int | None:
    texts = headers.all("content-length")
    if not texts:
        return None
    if len(texts) > 1 or "," in texts[0]:
        texts = list({part.strip() for text in texts for part in text.split(",")})
    if len(texts) > 1 or not (texts[0].isascii() and texts[0].isdigit() and len(texts[0]) <= 18):
        raise InvalidResponse("the response's Content-Length is malformed or contradicts itself")
    return int(texts[0])
