"""Send one GET to the API: time limits, bounded bodies, errors by status, the API's clock."""

from __future__ import annotations

import http
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from pydantic import SecretStr

from archiver.hms.auth import BACKDATED, Clock, utc_now
from archiver.hms.connections import Answer, BrokenCompression, Connections
from archiver.hms.errors import (
    HmsBadRequest,
    HmsError,
    HmsInvalidResponse,
    HmsNotFound,
    HmsRateLimited,
    HmsUnauthorized,
    HmsUnavailable,
    HmsUntrusted,
)
from archiver.hms.responses import LIST, endpoint, error_text, is_html, json_object
from archiver.http import options as http_options
from archiver.http import trust
from archiver.http.errors import CouldNotConnect, HttpError, InvalidRequest, TooLong, TooSlow
from archiver.http.retry_after import http_date, retry_after
from archiver.http.tally import TALLY

Query = Mapping[str, str | Sequence[str]]
"""Parameters of a request; a sequence repeats its name."""

MAX_ANSWER_BYTES = 32 * 2**20  # 100 assets are some 60 KB
MAX_RETRY_AFTER = timedelta(hours=1)  # a wrong header must not delay an asset past its deadline


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`connect` and `read` (the longest silence in a response) limit one request; `call` limits a call with all its
    retries: none starts, nor is waited for, beyond it. It is well under a lease, and the ledger retries anyway."""

    connect: timedelta = timedelta(seconds=5)
    read: timedelta = timedelta(seconds=20)
    call: timedelta = timedelta(seconds=60)


TIMEOUTS = Timeouts()

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",  # a million assets are 600 MB of JSON, a tenth of it compressed
    "User-Agent": "recording-archiver",
}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Transport:
    """Sends requests to one API. Redirects are not followed: they would carry the token elsewhere. Thread-safe.

    No message of an error holds a query or a token."""

    def __init__(
        self,
        api_url: str,
        timeouts: Timeouts,
        *,
        authorities: Path | None = None,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base_url = _ascii(api_url.rstrip("/"))
        self._clock = clock
        self._monotonic = monotonic
        self._clock_skew: timedelta | None = None
        self._api_time: tuple[datetime, float] | None = None  # with our monotonic clock at that moment
        waits = http_options.Timeouts(connect=timeouts.connect, silence=timeouts.read)
        self._http = Connections(self._base_url, waits, authorities, MAX_ANSWER_BYTES)

    def get(self, path: str, query: Query, token: SecretStr, deadline: float) -> Mapping[str, Any]:
        """Send one request and return the JSON object of a 200 response. `deadline`: by the monotonic clock. Raises
        HmsError."""
        began = self._monotonic()
        try:
            return self._get(path, query, token, deadline)
        finally:
            TALLY.add_request("api", self._monotonic() - began)

    def _get(self, path: str, query: Query, token: SecretStr, deadline: float) -> Mapping[str, Any]:
        asked = endpoint(path)
        sent_at = self._clock()

        def check() -> None:
            if self._monotonic() > deadline:
                raise HmsUnavailable(f"{asked}: the answer came too slowly")

        failure: HmsError
        try:
            url = f"{self._base_url}{path}?{urlencode(query, doseq=True)}" if query else self._base_url + path
            bearer = f"Bearer {token.get_secret_value()}".encode().decode("latin-1")
            answer = self._http.get(url, {**_HEADERS, "Authorization": bearer}, check)
        except (InvalidRequest, UnicodeEncodeError) as error:
            failure = HmsInvalidResponse(
                f"{asked}: the request cannot be sent ({type(error).__name__}). Does the token hold a line break, "
                "or is the asset id not one?"
            )
        except TooSlow as error:
            failure = HmsUnavailable(f"{asked}: no answer in time ({error})")
        except TooLong:
            failure = HmsInvalidResponse(f"{asked}: the answer is larger than {MAX_ANSWER_BYTES >> 20} MiB")
        except BrokenCompression:
            failure = HmsInvalidResponse(f"{asked}: the answer's compression is broken")
        except (CouldNotConnect, OSError) as error:
            host = urlsplit(self._base_url).netloc
            reason = trust.rejection(error)
            if reason is not None:
                failure = HmsUntrusted(f"{asked}: cannot connect to {host}: {trust.rejected(reason)}")
            else:
                failure = HmsUnavailable(
                    f"{asked}: cannot connect to {host} ({error}). Is HMS_API_URL right?"
                )
        except HttpError as error:
            failure = HmsUnavailable(f"{asked}: the connection broke ({error})")
        else:
            self._note_clock(answer, sent_at)
            if answer.status == http.HTTPStatus.OK:
                return json_object(answer.body, asked, answer)
            raise self._refusal(asked, answer, token)
        # outside of `except`: a traceback would show the URL with its query, and the token
        raise failure

    def api_time(self) -> datetime | None:
        """Return the time by the API's clock, to a second or so; None before its first response."""
        measured = self._api_time
        return measured and measured[0] + timedelta(seconds=self._monotonic() - measured[1])

    def clock_skew(self) -> timedelta | None:
        """Return how far this machine's clock is ahead of the API's (negative: behind), to a second or so, by the
        latest response's `Date`. None before the first one."""
        return self._clock_skew

    def close(self) -> None:
        self._http.close()

    def _refusal(self, asked: str, answer: Answer, token: SecretStr) -> HmsError:
        """Return the error for a response other than 200."""
        status, body = answer.status, answer.body
        answered = f"{asked}: answered {status}{error_text(answer, body, token)}"
        if status in (401, 403):
            return HmsUnauthorized(
                f"{answered}: 100ms refuses the access key, the secret or the token. Compare HMS_ACCESS_KEY and "
                "HMS_SECRET (or HMS_MANAGEMENT_TOKEN, which also expires) with the 100ms dashboard, Developer section"
                + self._skew_hint()
            )
        if status == 404 and not is_html(body):
            return HmsNotFound(
                answered + ("; is HMS_API_URL right, with its /v2?" if asked.endswith(LIST) else "")
            )
        if status == 429:
            return HmsRateLimited(answered, self._retry_after(answer))
        if status == 408 or status >= 500:
            return HmsUnavailable(answered, self._retry_after(answer))
        location = answer.headers.get("location")
        if status in _REDIRECTS and location is not None:
            host = _host(location)
            answered += f", a redirect to {host}, which is not followed; is HMS_API_URL right?"
        if 400 <= status < 500 and status != 404:
            return HmsBadRequest(answered)
        return HmsInvalidResponse(answered)  # a 404 in HTML comes from a proxy or another server

    def _retry_after(self, answer: Answer) -> timedelta | None:
        """Return what Retry-After asks for, at most MAX_RETRY_AFTER, by the API's own clock when it tells."""
        wait = retry_after(answer.headers.get, self.api_time() or self._clock())
        return None if wait is None else min(wait, MAX_RETRY_AFTER)

    def _note_clock(self, answer: Answer, sent_at: datetime) -> None:
        there = http_date(answer.headers.get("date") or "")
        if there is None:
            return
        there += timedelta(seconds=0.5)  # `Date` has whole seconds
        self._api_time = (there, self._monotonic())
        self._clock_skew = sent_at + (self._clock() - sent_at) / 2 - there

    def _skew_hint(self) -> str:
        skew = self._clock_skew
        if skew is None:
            return "; check this machine's clock too: the answer does not say what time it is"
        if abs(skew) < BACKDATED:
            return ""
        side = "ahead of" if skew > timedelta(0) else "behind"
        seconds = abs(skew).total_seconds()
        return f". This machine's clock is {seconds:.0f} s {side} the API's; tokens by either are refused"


def _host(location: str) -> str:
    try:
        return urlsplit(location).hostname or "the same host"
    except ValueError:
        return "an invalid address"


def _ascii(url: str) -> str:
    """Write a host of other letters, and a path of them, as they are sent (RFC 3987, section 3.1)."""
    if url.isascii():
        return url
    try:
        return str(httpx.URL(url))
    except httpx.InvalidURL:
        return url  # no request can be sent to it, and each says so
