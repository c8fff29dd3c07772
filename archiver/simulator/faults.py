"""Faults by name: each wraps the application that would have answered properly.

Which request meets which fault is asked for (`Faults.add`) or drawn from a seed (`simulator.chaos`).
"""

from __future__ import annotations

import base64
import gzip as gzip_format
import inspect
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from archiver.simulator.chaos import Chaos
from archiver.simulator.connection import close, pause, reset, write_raw
from archiver.simulator.serving import answer, answer_xml

_LONGEST_STALL_SECONDS = 300.0


@dataclass(frozen=True)
class Asked:
    """What a fault is matched against. `on` is `api`, `storage` or `cdn`."""

    on: str
    method: str
    path: str
    range: str | None
    asset_id: str | None
    asset_type: str | None
    signature: str | None = field(repr=False)


@dataclass(frozen=True)
class Match:
    """Each condition that is set must hold. `on="storage"` means wherever bytes come from, the CDN included;
    `path` is a regular expression that must be found in the path."""

    on: str | None = None
    path: str | None = None
    asset: str | None = None
    type: str | None = None
    method: str | None = None

    def meets(self, asked: Asked) -> bool:
        return (
            (self.on is None or self.on == asked.on or (self.on == "storage" and asked.on == "cdn"))
            and (self.path is None or re.search(self.path, asked.path) is not None)
            and (self.asset is None or self.asset == asked.asset_id)
            and (self.type is None or self.type == asked.asset_type)
            and (self.method is None or self.method == asked.method)
        )


@dataclass
class Call:
    """One request on its way to the application that would have answered it properly."""

    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send
    asked: Asked
    revoke: Callable[[str], None] = field(repr=False)


class _Ended(Exception):
    """The answer was ended on purpose."""


# --- answers instead of the proper one


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
    """403, and this very signature stays dead; a URL signed anew works."""
    if call.asked.signature is not None:
        call.revoke(call.asked.signature)
    await _refuse(call, 403, "ExpiredToken", "The provided token has expired.")


async def html(call: Call) -> None:
    page = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
    await answer(200, page, [("content-type", "text/html; charset=utf-8")], call.scope, call.send)


async def empty(call: Call) -> None:
    await answer(200, b"", [("content-type", "application/octet-stream")], call.scope, call.send)


async def garbled_json(call: Call, body: str = '{"limit": 10, "data": [{"id": "64') -> None:
    await answer(200, body.encode(), [("content-type", "application/json")], call.scope, call.send)


# --- the proper answer, ended early or late


async def cut(call: Call, at_byte: int | None = None) -> None:
    """The connection ends after `at_byte` bytes of the body (half of it, if not said)."""
    if await _stopped_at(call, at_byte):
        await close(call.scope, call.receive)


async def connection_reset(call: Call, at_byte: int | None = None) -> None:
    """Like `cut`, with a TCP reset; -1: before the first byte of the answer."""
    if at_byte == -1 or await _stopped_at(call, at_byte):
        await reset(call.scope, call.receive)


async def stall(call: Call, at_byte: int | None = None, seconds: float = _LONGEST_STALL_SECONDS) -> None:
    """Nothing comes after `at_byte` bytes (-1: not even a status); after `seconds` the connection ends."""
    if at_byte == -1 or await _stopped_at(call, at_byte):
        await pause(call.receive, seconds)
        await close(call.scope, call.receive)


async def delay(call: Call, seconds: float = 1.0) -> None:
    await pause(call.receive, seconds)
    await call.app(call.scope, call.receive, call.send)


async def slow(call: Call, bytes_per_second: int = 64 * 1024) -> None:
    """The body comes at this pace, per connection."""
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


# --- the proper answer with something wrong about it


async def short_body(call: Call, missing_bytes: int | None = None, content_length: str = "agrees") -> None:
    """The body lacks its last `missing_bytes` (half, if not said). Content-Length says so too (`agrees`), or
    promises the whole (`full`) and the connection ends."""
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
    """`extra_bytes` too many. Content-Length counts them (`agrees`), or they follow behind a proper answer
    (`original`), as from a server that lies."""
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
    """As if the file had been replaced: the ETag differs each time. If-Match fails, If-Range gets the whole;
    unless `ignore_preconditions`, as at servers that know neither."""
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
    """200 and the whole file, whatever range was asked for."""
    await _with_request_without(call, {b"range"}, {})


async def no_length(call: Call) -> None:
    """Chunked, no Content-Length, no ranges."""
    await _with_request_without(call, {b"range"}, {}, {"content-length", "accept-ranges"})


async def wrong_checksum(call: Call, header: str = "x-goog-hash") -> None:
    """A checksum header (`x-goog-hash`, `x-amz-checksum-crc32c`, `etag`) that is not the file's."""
    values = {
        "x-goog-hash": f"crc32c={_random_base64(4)},md5={_random_base64(16)}",
        "x-amz-checksum-crc32c": _random_base64(4),
        "etag": '"00000000000000000000000000000bad"',
    }
    await _with_request_without(call, {b"if-match", b"if-range"}, {header: values[header]})


async def gzip(call: Call, force: bool = False) -> None:
    """Content-Encoding: gzip, for a client that accepts it; with `force`, for any."""
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
    "garbled-json": garbled_json,
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


@dataclass
class Fault:
    """`skip`: let so many matching requests through first. `times`: then this many meet it (None: all)."""

    id: int
    name: str
    match: Match
    times: int | None
    skip: int
    args: Mapping[str, Any]
    fired: int = 0


class Faults:
    """Which request meets which fault. The one that was asked for first has precedence; chaos comes last."""

    def __init__(self, chaos_seed: int | None, chaos_rate: float) -> None:
        self._chaos = Chaos(chaos_seed, chaos_rate)
        self._faults: dict[int, Fault] = {}
        self._revoked: set[str] = set()
        self._ids = count(1)

    @property
    def chaos_seed(self) -> int:
        return self._chaos.seed

    def add(self, name: str, match: Match, times: int | None, skip: int, args: Mapping[str, Any]) -> Fault:
        """Raises ValueError for a fault or an argument that does not exist, or a bad pattern."""
        if name not in FAULTS:
            raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(FAULTS))}")
        try:
            inspect.signature(FAULTS[name]).bind(None, **args)
            re.compile(match.path or "")
        except (TypeError, re.error) as error:
            raise ValueError(f"fault {name!r}: {error}") from error
        fault = Fault(next(self._ids), name, match, times, skip, dict(args))
        self._faults[fault.id] = fault
        return fault

    def clear(self) -> None:
        """No fault is left, and no chaos; revoked signatures stay dead."""
        self._faults.clear()
        self._chaos.stop()

    def all(self) -> list[Fault]:
        return list(self._faults.values())

    def take(self, asked: Asked) -> tuple[str, Mapping[str, Any]] | None:
        """The fault that this request meets, counted; its name and arguments."""
        if asked.signature in self._revoked:
            return "early-expiry", {}
        for fault in self._faults.values():
            if not fault.match.meets(asked) or fault.times == 0:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.fired += 1
            if fault.times is not None:
                fault.times -= 1
            return fault.name, fault.args
        return self._chaos.draw(asked.on, asked.method, asked.path, asked.range)

    def revoke(self, signature: str) -> None:
        self._revoked.add(signature)


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
    """Let the answer begin and stop it behind `at_byte` bytes; False when it was shorter and is complete."""
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
    """What the proper answer would say, without sending it."""
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
