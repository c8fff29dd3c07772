"""Faults by name: each wraps the application that would have answered correctly. See `plan` for which request meets
which."""

from __future__ import annotations

import base64
import gzip as gzip_format
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from archiver.simulator.endpoints.serving import answer, answer_xml
from archiver.simulator.faults.connection import close, pause, reset, write_raw

_LONGEST_STALL_SECONDS = 300.0


@dataclass(frozen=True)
class Asked:
    """The request, for matching faults. `on`: `api`, `storage` or `cdn`."""

    on: str
    method: str
    path: str
    range: str | None
    asset_id: str | None
    asset_type: str | None
    signature: str | None = field(repr=False)


@dataclass
class Call:
    """One request on its way to the application that would have answered it correctly."""

    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send
    asked: Asked
    revoke: Callable[[str], None] = field(repr=False)


class _Ended(Exception):
    """The response was ended on purpose."""


# --- responses instead of the correct one


async def too_many_requests(call: Call, retry_after: str | int | None = None) -> None:
    headers = [] if retry_after is None else [("retry-after", str(retry_after))]
    await _refuse(call, 429, "SlowDown", "rate limit exceeded", headers)


async def server_error(call: Call, status: int = 503, retry_after: str | int | None = None) -> None:
    headers = [] if retry_after is None else [("retry-after", str(retry_after))]
    await _refuse(call, status, "InternalError", "something went wrong", headers)


async def gone(call: Call) -> None:
    await _refuse(call, 404, "NoSuchKey", "not found")


async def token_refused(call: Call, status: int = 401) -> None:
    await _refuse(call, status, "AccessDenied", "token refused")


async def early_expiry(call: Call) -> None:
    """Answer 403 and revoke the signature; a new URL works."""
    if call.asked.signature is not None:
        call.revoke(call.asked.signature)
    await _refuse(call, 403, "ExpiredToken", "The provided token has expired.")


async def html(call: Call) -> None:
    page = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
    await answer(200, page, [("content-type", "text/html; charset=utf-8")], call.scope, call.send)


async def empty(call: Call) -> None:
    await answer(200, b"", [("content-type", "application/octet-stream")], call.scope, call.send)


async def invalid_json(call: Call, body: str = '{"limit": 10, "data": [{"id": "64') -> None:
    await answer(200, body.encode(), [("content-type", "application/json")], call.scope, call.send)


# --- the correct response, ended early or late


async def cut(call: Call, at_byte: int | None = None) -> None:
    """Close the connection after `at_byte` bytes of the body (default: half of it)."""
    if await _stopped_at(call, at_byte):
        await close(call.scope, call.receive)


async def connection_reset(call: Call, at_byte: int | None = None) -> None:
    """Like `cut`, with a TCP reset; -1: before the first byte of the response."""
    if at_byte == -1 or await _stopped_at(call, at_byte):
        await reset(call.scope, call.receive)


async def stall(call: Call, at_byte: int | None = None, seconds: float = _LONGEST_STALL_SECONDS) -> None:
    """Send nothing after `at_byte` bytes (-1: not even a status), and close the connection after `seconds`."""
    if at_byte == -1 or await _stopped_at(call, at_byte):
        await pause(call.receive, seconds)
        await close(call.scope, call.receive)


async def delay(call: Call, seconds: float = 1.0) -> None:
    await pause(call.receive, seconds)
    await call.app(call.scope, call.receive, call.send)


async def slow(call: Call, bytes_per_second: int = 64 * 1024) -> None:
    """Limit the rate of the body, per connection."""
    step = max(1, bytes_per_second // 20)

    async def paced(message: Message) -> None:
        body = message.get("body", b"")
        for start in range(0, len(body) - step, step):
            await call.send(
                {"type": "http.response.body", "body": body[start : start + step], "more_body": True}
            )
            await pause(call.receive, step / bytes_per_second)
        if body:
            rest = body[(len(body) - 1) // step * step :]
            await pause(call.receive, len(rest) / bytes_per_second)
            message = {**message, "body": rest}
        await call.send(message)

    await call.app(call.scope, call.receive, paced)


# --- the correct response, altered


async def short_body(call: Call, missing_bytes: int | None = None, content_length: str = "agrees") -> None:
    """Omit the last `missing_bytes` of the body (default: half). Content-Length agrees (`agrees`), or is that of the
    whole (`full`) and the connection is closed."""
    if content_length == "full":
        whole = await _body_length(call)
        await cut(call, None if missing_bytes is None or whole is None else max(0, whole - missing_bytes))
        return
    left = 0

    async def shortened(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.start":
            length = _content_length(message) or 0
            left = max(0, length - (length - length // 2 if missing_bytes is None else missing_bytes))
            await call.send(_with_headers(message, {"content-length": str(left)}))
            return
        body = message.get("body", b"")[:left]
        left -= len(body)
        await call.send({**message, "body": body})

    await call.app(call.scope, call.receive, shortened)


async def long_body(call: Call, extra_bytes: int = 1000, content_length: str = "agrees") -> None:
    """Append `extra_bytes`. Content-Length counts them (`agrees`), or they follow a correct response (`original`)."""
    agrees = content_length == "agrees"

    async def lengthened(message: Message) -> None:
        if message["type"] == "http.response.start":
            length = _content_length(message)
            changes = {"content-length": str(length + extra_bytes)} if agrees and length is not None else {}
            await call.send(_with_headers(message, changes))
            return
        last = not message.get("more_body", False)
        if last and agrees:
            message = {**message, "body": message.get("body", b"") + bytes(extra_bytes)}
        elif last:
            await call.send({**message, "more_body": True})
            write_raw(call.scope, bytes(extra_bytes))
            raise _Ended
        await call.send(message)

    if not await _ended_by(call, lengthened):
        return
    await close(call.scope, call.receive)


async def other_etag(call: Call, ignore_preconditions: bool = False) -> None:
    """Change the ETag each time, as if the file had been replaced. If-Match fails and If-Range gets the whole, unless
    `ignore_preconditions`, as at servers that support neither."""
    headers = dict(call.scope["headers"])
    if b"if-match" in headers and not ignore_preconditions:
        await answer_xml(412, "PreconditionFailed", "The file was replaced", call.scope, call.send)
        return
    dropped = {b"if-match", b"if-range"}
    if b"if-range" in headers and not ignore_preconditions:
        dropped |= {b"range"}
    etag = f'"{secrets.token_hex(16)}"'
    await _with_request_without(call, dropped, {"etag": etag})


async def range_ignored(call: Call) -> None:
    """Answer 200 with the whole file, whatever the range."""
    await _with_request_without(call, {b"range"}, {})


async def no_length(call: Call) -> None:
    """Answer chunked, without Content-Length and ranges."""
    await _with_request_without(call, {b"range"}, {}, {"content-length", "accept-ranges"})


async def wrong_checksum(call: Call, header: str = "x-goog-hash") -> None:
    """Send a wrong checksum header (`x-goog-hash`, `x-amz-checksum-crc32c`, `etag`)."""
    values = {
        "x-goog-hash": f"crc32c={_random_base64(4)},md5={_random_base64(16)}",
        "x-amz-checksum-crc32c": _random_base64(4),
        "etag": '"00000000000000000000000000000bad"',
    }
    await _with_request_without(call, {b"if-match", b"if-range"}, {header: values[header]})


async def gzip(call: Call, force: bool = False) -> None:
    """Send Content-Encoding: gzip to a client that accepts it; with `force`, to any."""
    accepted = dict(call.scope["headers"]).get(b"accept-encoding", b"")
    if not force and b"gzip" not in accepted:
        await call.app(call.scope, call.receive, call.send)
        return
    start: Message = {}
    body = bytearray()

    async def packed(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        body.extend(message.get("body", b""))
        if not message.get("more_body", False):
            data = gzip_format.compress(bytes(body), mtime=0)
            changes = {"content-encoding": "gzip", "content-length": str(len(data))}
            await call.send(_with_headers(start, changes))
            await call.send({"type": "http.response.body", "body": data})

    await call.app(call.scope, call.receive, packed)


FAULTS: Mapping[str, Callable[..., Awaitable[None]]] = {
    "too-many-requests": too_many_requests,
    "server-error": server_error,
    "gone": gone,
    "token-refused": token_refused,
    "early-expiry": early_expiry,
    "html": html,
    "empty": empty,
    "invalid-json": invalid_json,
    "cut": cut,
    "reset": connection_reset,
    "stall": stall,
    "delay": delay,
    "slow": slow,
    "short-body": short_body,
    "long-body": long_body,
    "other-etag": other_etag,
    "range-ignored": range_ignored,
    "no-length": no_length,
    "wrong-checksum": wrong_checksum,
    "gzip": gzip,
}


async def _refuse(
    call: Call, status: int, code: str, message: str, headers: list[tuple[str, str]] | None = None
) -> None:
    if call.asked.on != "api":
        await answer_xml(status, code, message, call.scope, call.send, headers or [])
        return
    body = f'{{"code": {status}, "message": "{message}", "details": ["simulated"]}}'
    all_headers = [("content-type", "application/json"), *(headers or [])]
    await answer(status, body.encode(), all_headers, call.scope, call.send)


async def _stopped_at(call: Call, at_byte: int | None) -> bool:
    """Stop the response after `at_byte` bytes; False when it was shorter and is complete."""
    left = at_byte or 0

    async def limited(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.start":
            if at_byte is None:
                left = (_content_length(message) or 0) // 2
            await call.send(message)
            return
        body = message.get("body", b"")
        if len(body) > left:
            await call.send({"type": "http.response.body", "body": body[:left], "more_body": True})
            raise _Ended
        left -= len(body)
        await call.send(message)

    return await _ended_by(call, limited)


async def _ended_by(call: Call, send: Send) -> bool:
    try:
        await call.app(call.scope, call.receive, send)
    except _Ended:
        return True
    return False


async def _with_request_without(
    call: Call, dropped: set[bytes], changes: Mapping[str, str], removed: set[str] | None = None
) -> None:
    headers = [(name, value) for name, value in call.scope["headers"] if name not in dropped]

    async def changed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = _with_headers(message, changes, removed or set())
        await call.send(message)

    await call.app({**call.scope, "headers": headers}, call.receive, changed)


async def _body_length(call: Call) -> int | None:
    """Return the Content-Length of the correct response, without sending it."""
    length: int | None = None

    async def noted(message: Message) -> None:
        nonlocal length
        if message["type"] == "http.response.start":
            length = _content_length(message)
        raise _Ended

    await _ended_by(call, noted)
    return length


def _content_length(start: Message) -> int | None:
    value = dict(start["headers"]).get(b"content-length")
    return int(value) if value is not None else None


def _with_headers(start: Message, changes: Mapping[str, str], removed: set[str] | None = None) -> Message:
    names = {name.encode() for name in (*changes, *(removed or ()))}
    kept = [(name, value) for name, value in start["headers"] if name.lower() not in names]
    return {
        **start,
        "headers": [*kept, *((name.encode(), value.encode()) for name, value in changes.items())],
    }


def _random_base64(length: int) -> str:
    return base64.b64encode(secrets.token_bytes(length)).decode()
