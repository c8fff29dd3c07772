"""POST /webhooks/100ms: what 100ms announces is archived now rather than after the next sweep.

100ms signs nothing; it sends a secret header. A webhook is a hint that 100ms repeats only for 14 s, so every answer but
200 may lose it, and the sweep finds its assets all the same. What only the webhook has are signed URLs of thumbnails,
which are sealed in the ledger before it is answered.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from enum import StrEnum

import structlog
from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from archiver.core.upkeep.not_listed import Announced
from archiver.hms.errors import HmsInvalidResponse
from archiver.hms.webhooks import EVENTS, RecordingEvent, parse_event
from archiver.http.tally import Tally
from archiver.ledger.errors import LedgerError
from worker.serve.calls import Busy, Calls
from worker.serve.listener import headers_of

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 4 * 2**20
"""A webhook has some kilobytes."""
BODY_SECONDS = 10
"""For the whole body to arrive."""
LEDGER_SECONDS = 5
"""For the ledger's work; afterwards 503, and the work is done all the same."""
THREADS = 4
MOST_WAITING = 200
WEBHOOKS = "webhooks:"
"""Begin of the names of the totals, by `Outcome`."""


class Outcome(StrEnum):
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"  # an event that announces no asset
    NO_SECRET = "no_secret"  # noqa: S105 - none is configured
    UNAUTHORIZED = "unauthorized"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    INVALID = "invalid"
    FLOODED = "flooded"
    LEDGER_AWAY = "ledger_away"


_STATUS = {
    Outcome.ACCEPTED: 200,
    Outcome.UNKNOWN: 200,
    Outcome.NO_SECRET: 503,
    Outcome.UNAUTHORIZED: 401,
    Outcome.TOO_LARGE: 413,
    Outcome.TOO_SLOW: 408,
    Outcome.INVALID: 400,
    Outcome.FLOODED: 503,
    Outcome.LEDGER_AWAY: 503,
}


class Receiver:
    """Takes webhooks. Duplicates and replays change nothing: all work is idempotent."""

    def __init__(
        self,
        *,
        secret: SecretStr | None,
        header: str,
        take: Callable[[RecordingEvent], list[Announced]],
        look_up: Callable[[Announced], bool],
        tally: Tally,
    ) -> None:
        """`take`: see `Announcements.take`. `look_up`: see `Lookups.add`."""
        self._secret = secret
        self._header = header
        self._take = take
        self._look_up = look_up
        self._tally = tally
        self._calls = Calls("webhooks", threads=THREADS, most_waiting=MOST_WAITING)

    async def receive(self, request: Request) -> JSONResponse:
        try:
            outcome = await self._receive(request)
        except ClientDisconnect:
            outcome = Outcome.TOO_SLOW
        self._tally.add(f"{WEBHOOKS}{outcome}")
        status = _STATUS[outcome]
        headers = {"Retry-After": "10"} if status == 503 else {}
        if status != 200:  # an unread body would be taken for the next request
            headers["Connection"] = "close"
        return JSONResponse({"outcome": outcome.value}, status, headers=headers)

    async def _receive(self, request: Request) -> Outcome:
        if self._secret is None:
            return Outcome.NO_SECRET
        if not self._is_authorized(request):
            return Outcome.UNAUTHORIZED
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(request)
        except TimeoutError:
            return Outcome.TOO_SLOW
        if body is None:
            return Outcome.TOO_LARGE
        try:
            working = self._calls.submit(lambda: self._handle(body))
        except Busy:
            return Outcome.FLOODED
        try:
            return await asyncio.wait_for(asyncio.shield(working), LEDGER_SECONDS)
        except HmsInvalidResponse:
            return Outcome.INVALID
        except (LedgerError, TimeoutError):
            return Outcome.LEDGER_AWAY

    def _is_authorized(self, request: Request) -> bool:
        assert self._secret is not None
        given = headers_of(self._header, request.scope)
        return len(given) == 1 and hmac.compare_digest(given[0], self._secret.get_secret_value().encode())

    def _handle(self, body: bytes) -> Outcome:
        """Raises HmsInvalidResponse, LedgerError."""
        event = parse_event(body)
        to_look_up = self._take(event)
        if event.type not in EVENTS:
            return Outcome.UNKNOWN
        if not all(self._look_up(each) for each in to_look_up):
            log.warning("webhooks_left_to_the_sweep", session_id=event.session_id)
        return Outcome.ACCEPTED


async def _read(request: Request) -> bytes | None:
    """None: larger than MAX_BODY_BYTES."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)
