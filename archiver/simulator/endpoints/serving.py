"""Serve one file over HTTP: GET, HEAD, ranges and preconditions (RFC 9110, sections 13 and 14, as in S3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from starlette.datastructures import Headers
from starlette.types import Scope, Send

from archiver.simulator.recordings.content import Content

Header = tuple[bytes, bytes]
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")

CONTENT_TYPES: Mapping[str, str] = {
    "mp4": "video/mp4",
    "webm": "video/webm",
    "ts": "video/mp2t",
    "m4s": "video/iso.segment",
    "m3u8": "application/vnd.apple.mpegurl",
    "vtt": "text/vtt",
    "zip": "application/zip",
    "csv": "text/csv",
    "txt": "text/plain",
    "srt": "application/x-subrip",
    "json": "application/json",
    "png": "image/png",
}


async def serve(
    content: Content, key: str, headers: Iterable[tuple[str, str]], scope: Scope, send: Send
) -> None:
    """Answer the request of `scope` with `content`, adding `headers`."""
    request = Headers(scope=scope)
    quoted = f'"{content.etag}"'
    common = [
        ("etag", quoted),
        ("accept-ranges", "bytes"),
        ("last-modified", "Wed, 12 Jun 2024 09:00:00 GMT"),
        ("content-type", CONTENT_TYPES.get(key.rpartition(".")[2], "application/octet-stream")),
        *headers,
    ]
    if not _matches(request.get("if-match", "*"), quoted):
        await answer_xml(
            412, "PreconditionFailed", "At least one of the pre-conditions did not hold", scope, send
        )
        return
    if "if-none-match" in request and _matches(request["if-none-match"], quoted):
        await answer(304, b"", common, scope, send)
        return
    size = content.size_bytes
    wanted = _RANGE.fullmatch(request.get("range", "").strip())
    if wanted is None or not any(wanted.groups()) or request.get("if-range", quoted) != quoted:
        await _send_body(200, content, 0, size, common, scope, send)
        return
    start, stop = _span(wanted[1], wanted[2], size)
    if start >= stop:
        unsatisfied = [("content-range", f"bytes */{size}")]
        await answer_xml(
            416, "InvalidRange", "The requested range is not satisfiable", scope, send, unsatisfied
        )
        return
    ranged = [*common, ("content-range", f"bytes {start}-{stop - 1}/{size}")]
    await _send_body(206, content, start, stop, ranged, scope, send)


async def answer(
    status: int, body: bytes, headers: Iterable[tuple[str, str]], scope: Scope, send: Send
) -> None:
    """Send a complete response. To HEAD, it keeps its Content-Length."""
    await send({"type": "http.response.start", "status": status, "headers": _raw(headers, len(body), status)})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def answer_xml(
    status: int, code: str, message: str, scope: Scope, send: Send, headers: Iterable[tuple[str, str]] = ()
) -> None:
    """Send an error as S3 and CloudFront do."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    await answer(status, body.encode(), [("content-type", "application/xml"), *headers], scope, send)


async def _send_body(
    status: int,
    content: Content,
    start: int,
    stop: int,
    headers: Iterable[tuple[str, str]],
    scope: Scope,
    send: Send,
) -> None:
    if scope["method"] == "HEAD" or start == stop:
        raw = _raw(headers, stop - start, status)
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b""})
        return
    await send(
        {"type": "http.response.start", "status": status, "headers": _raw(headers, stop - start, status)}
    )
    sent = 0
    for piece in content.read(start, stop):
        sent += len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": sent < stop - start})


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _matches(condition: str, quoted: str) -> bool:
    return condition.strip() == "*" or quoted in (tag.strip() for tag in condition.split(","))


def _raw(headers: Iterable[tuple[str, str]], length: int, status: int) -> list[Header]:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return raw if status == 304 else [*raw, (b"content-length", str(length).encode())]
