"""Response heads: status, headers, and how the body is framed (RFC 9112, section 6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archiver.http.errors import InvalidResponse

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")
_FIELD = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)\r\n", re.MULTILINE)
_SWITCHING_PROTOCOLS = 101
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


@dataclass(slots=True, unsafe_hash=True)  # frozen, it would take three times as long to make
class Head:
    status: int
    headers: Headers
    length_bytes: int | None  # Content-Length of the body; None: chunked, or until the connection closes
    chunked: bool
    ambiguous: bool  # both framings: an intermediary may have followed the other one
    persistent: bool = True  # the server lets the connection be used again

    @property
    def framed(self) -> bool:
        """Whether the end of the body shows. Otherwise it is where the connection closes, as it is after a cut."""
        return self.chunked or self.length_bytes is not None


def parse_head(lines: Sequence[bytes]) -> Head | None:
    """One head, line by line as libcurl gives it, status line and empty line included. None when it is informational
    (1xx). Raises InvalidResponse."""
    text = b"".join(lines).decode("latin-1")
    if text.count("\r\n") != len(lines) or text.count("\n") != len(lines) or not text.endswith("\r\n\r\n"):
        raise InvalidResponse("a line of the response's head does not end as it must")
    status_line = _STATUS_LINE.match(text)
    if status_line is None:
        raise InvalidResponse("what came is not an HTTP/1.x response")
    status = int(status_line[2])
    if status == _SWITCHING_PROTOCOLS:
        raise InvalidResponse("the server switches to a protocol that it was not asked for")
    if status < 200:
        return None
    fields = _FIELD.findall(text, status_line.end())
    if len(fields) != len(lines) - 2:
        raise InvalidResponse("a header line of the response is malformed")
    if " \r" in text or "\t\r" in text:  # blanks after a value, which are none of it: rare
        fields = [(name, value.rstrip(" \t")) for name, value in fields]
    headers = Headers(fields)
    chunked = False
    if headers.get("transfer-encoding") is not None:
        codings = headers.all("transfer-encoding")
        chunked = len(codings) == 1 and codings[0].lower() == "chunked"
        if not chunked:
            raise InvalidResponse("the response has a transfer encoding other than chunked")
    length = None if headers.get("content-length") is None else _length(headers.all("content-length"))
    persistent = _persistent(headers, status_line[1])
    if status in _NO_BODY:
        return Head(status, headers, 0, chunked=False, ambiguous=False, persistent=persistent)
    ambiguous = chunked and (length is not None or status_line[1] == "0")
    return Head(status, headers, None if chunked else length, chunked, ambiguous, persistent)


def _persistent(headers: Headers, minor_version: str) -> bool:
    """RFC 9112, section 9.3."""
    if headers.get("connection") is None:
        return minor_version == "1"
    options = {option.strip().lower() for value in headers.all("connection") for option in value.split(",")}
    return "close" not in options and (minor_version == "1" or "keep-alive" in options)


def _length(texts: list[str]) -> int:
    if len(texts) > 1 or "," in texts[0]:
        texts = list({part.strip() for text in texts for part in text.split(",")})
    if len(texts) > 1 or not (texts[0].isascii() and texts[0].isdigit() and len(texts[0]) <= 18):
        raise InvalidResponse("the response's Content-Length is malformed or contradicts itself")
    return int(texts[0])
