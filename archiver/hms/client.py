"""The 100ms recording-asset API over HTTP: patient with passing faults, strict about what it believes."""

from __future__ import annotations

import email.utils
import http
import ipaddress
import json
import logging
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import SecretStr, ValidationError

from archiver.hms.auth import BACKDATED, Clock, TokenProvider, utc_now
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
from archiver.hms.models import Asset, Page, SignedUrl
from archiver.http import trust
from archiver.retry_policy import API_CALL, RetryPolicy

PAGE_ROWS = 100  # the most the API gives: a tenth of the requests of its default
MAX_ANSWER_BYTES = 32 * 2**20  # 100 assets are some 60 KB; more than this is not an answer of this API
MAX_RETRY_AFTER = timedelta(hours=1)  # a wrong header must not put an asset off past its deadline
LIST = "/recording-assets"

T = TypeVar("T")

_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+(\.[\w-]*)?")
_QUERY = re.compile(r"(?<=\S)\?\S+")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`connect` and `read` (the longest silence in an answer) are of one request. `call` ends the call with all its
    retries: none is begun, nor waited for, that would pass it. It is well under a lease, and the ledger retries anyway.
    """

    connect: timedelta = timedelta(seconds=5)
    read: timedelta = timedelta(seconds=20)
    call: timedelta = timedelta(seconds=60)


class HmsClient:
    """Implements `hms.base.RecordingAssets`. Safe to use from several threads; make it after a fork, close it.

    Every method raises HmsError and nothing else; no message holds a query or a token. Every call may be
    repeated: they only read. Redirects are never followed, for they would carry the token elsewhere.
    `authorities`: the PEM file that certificates are verified by; None: `trust.authorities()`.
    """

    def __init__(
        self,
        api_url: str,
        tokens: TokenProvider,
        *,
        authorities: Path | None = None,
        policy: RetryPolicy = API_CALL,
        timeouts: Timeouts = Timeouts(),
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,  # in [0, 1), for the jitter
    ) -> None:
        self._base_url = api_url.rstrip("/")
        self._tokens = tokens
        self._policy = policy
        self._timeouts = timeouts
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._chance = chance
        self._clock_skew: timedelta | None = None
        self._api_time: tuple[datetime, float] | None = None  # and our monotonic clock at that moment
        self._own_clock_is_right = False  # tokens by the API's own `Date` were refused, and ours taken
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeouts.read.total_seconds(), connect=timeouts.connect.total_seconds()),
            follow_redirects=False,
            verify=_context(self._base_url, authorities),
            trust_env=not _is_loopback(self._base_url),  # no proxy leads to this machine's own loopback
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",  # a million assets are 600 MB of JSON, a tenth of it packed
                "User-Agent": "recording-archiver",
            },
        )

    # -- hms.base.RecordingAssets --------------------------------------------------------------------------
    def pages(
        self,
        *,
        room_id: str | None = None,
        session_id: str | None = None,
        status: str | None = None,
        start: str | None = None,
    ) -> Iterator[Page]:
        """See `RecordingAssets.pages`. How it ends:

        - `last` null, empty or absent, or no rows: the documented ends. No rows, yet a `last` that is new: as below,
          once; two pages without rows end it.
        - Fewer rows than the limit, yet a `last`: documented as the end too. One more page is asked for all the
          same, because a request is cheaper than an asset that is never seen; after such a page a `last` that is
          refused, unknown or repeated is no surprise and ends the walk.
        - A `last` that comes again after full pages: HmsInvalidResponse, for the walk would never end, and whatever
          comes after the loop has not been seen.
        """
        filters = {"room_id": room_id, "session_id": session_id, "status": status}
        asked = {name: value for name, value in filters.items() if value is not None}
        starts: set[str] = set() if start is None else {start}
        ended = empty = False  # a page has shown a documented end, and we look once more
        while True:
            query = {**asked, "limit": str(PAGE_ROWS)} | ({} if start is None else {"start": start})
            try:
                page, full = self._call(LIST, query, _page)
            except (HmsNotFound, HmsBadRequest):
                if ended:
                    return
                raise
            yield page
            start, was_ended, ended = page.next_start, ended, not full
            was_empty, empty = empty, not page.assets and not page.invalid_rows
            if start is None or (empty and was_empty):
                return
            if start in starts:
                if ended or was_ended:
                    return
                raise HmsInvalidResponse(
                    f"{_asked(LIST)}: after {len(starts)} pages the same `last` ({start[:80]!r}) came again, so the "
                    "list would never end; assets behind it have not been seen. Try again; if it stays, tell 100ms"
                )
            starts.add(start)

    def asset(self, asset_id: str) -> Asset:
        return self._call(_asset_path(asset_id), {}, lambda body: _asset(body, asset_id))

    def sign(self, asset_id: str, duration: timedelta = timedelta(hours=1)) -> SignedUrl:
        query = {"presign_duration": str(int(duration.total_seconds()))}
        return self._call(
            f"{_asset_path(asset_id)}/presigned-url", query, lambda body: _signed_url(body, asset_id)
        )

    # -- for `doctor` --------------------------------------------------------------------------------------
    def check(self) -> None:
        """The smallest authenticated call. Returns when the API is reached and takes the credentials."""
        self._call(LIST, {"limit": "10"}, _page)

    def clock_skew(self) -> timedelta | None:
        """How far this machine's clock is ahead of the API's (negative: behind), to a second or so, by the
        `Date` of the latest answer, whatever its status. None before the first one."""
        return self._clock_skew

    # -- hms.base.TellsTime --------------------------------------------------------------------------------
    def api_time(self) -> datetime | None:
        measured = self._api_time
        return measured and measured[0] + timedelta(seconds=self._monotonic() - measured[1])

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    # -- one call ------------------------------------------------------------------------------------------
    def _call(self, path: str, query: Mapping[str, str], read: Callable[[Mapping[str, Any]], T]) -> T:
        """GET `path` and return what `read` makes of it; retry by the policy, and with a fresh token on 401 or 403."""
        deadline = self._monotonic() + self._timeouts.call.total_seconds()
        token = self._tokens.token(self._token_time())
        refusals = 0
        attempt = 1
        while True:
            failure: HmsUnavailable | HmsInvalidResponse
            try:
                return read(self._get(path, query, token, deadline))
            except HmsUntrusted:
                raise
            except HmsUnauthorized:
                refusals += 1
                other = self._other_token(token, refusals)
                if other is None:
                    raise
                token = other
                continue
            except HmsBadRequest:
                raise
            except (HmsUnavailable, HmsInvalidResponse) as error:
                failure = error
            wait = self._wait(attempt, failure)
            if attempt == self._policy.attempts or self._monotonic() + wait >= deadline:
                raise failure
            _log.warning(
                "hms_try_again",
                extra={"attempt": attempt, "wait_seconds": round(wait, 1), "reason": str(failure)},
            )
            self._sleep(wait)
            attempt += 1

    def _token_time(self) -> datetime:
        """What a token is dated by: the API's clock, so that ours may be wrong; ours before the API told its time."""
        theirs = None if self._own_clock_is_right else self.api_time()
        return theirs or self._clock()

    def _other_token(self, refused: SecretStr, refusals: int) -> SecretStr | None:
        """A fresh token; then, where the clocks differ, one by the other clock (a proxy may write a wrong `Date`)."""
        if refusals == 1:
            return self._tokens.replacement(refused, self._token_time())
        theirs = self.api_time()
        if theirs is None or abs(theirs - self._clock()) < BACKDATED:
            return None
        self._own_clock_is_right = not self._own_clock_is_right
        return self._tokens.replacement(refused, self._token_time()) if refusals == 2 else None

    def _wait(self, attempt: int, failure: HmsError) -> float:
        if isinstance(failure, HmsUnavailable) and failure.retry_after is not None:
            spread = self._policy.base * self._chance()  # not all workers in one moment
            return (failure.retry_after + spread).total_seconds()
        return self._policy.pause(attempt, self._chance()).total_seconds()

    def _get(
        self, path: str, query: Mapping[str, str], token: SecretStr, deadline: float
    ) -> Mapping[str, Any]:
        """One request; the JSON object of a 200. Raises outside of `except`, for what httpx raises carries the
        URL with its query, and h11's text even the token."""
        asked = _asked(path)
        sent_at = self._clock()
        failure: HmsError
        try:
            with self._http.stream(
                "GET",
                self._base_url + path,
                params=query,
                headers=[(b"Authorization", b"Bearer " + token.get_secret_value().encode())],
            ) as answer:
                self._note_clock(answer, sent_at)
                body = self._read(answer, asked, deadline)
        except httpx.TimeoutException as error:
            failure = HmsUnavailable(f"{asked}: no answer in time ({type(error).__name__})")
        except httpx.ConnectError as error:
            host = urlsplit(self._base_url).netloc
            reason = trust.rejection(error)
            if reason is not None:
                failure = HmsUntrusted(f"{asked}: cannot connect to {host}: {trust.rejected(reason)}")
            else:
                failure = HmsUnavailable(
                    f"{asked}: cannot connect to {host} ({error}). Is HMS_API_URL right?"
                )
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError) as error:
            failure = HmsInvalidResponse(
                f"{asked}: the request cannot be sent ({type(error).__name__}). Does the token hold a line break, "
                "or is the asset id no id?"
            )
        except httpx.DecodingError:
            failure = HmsInvalidResponse(f"{asked}: the answer's compression is broken")
        except httpx.HTTPError as error:
            failure = HmsUnavailable(f"{asked}: the connection broke ({type(error).__name__})")
        else:
            if answer.status_code == http.HTTPStatus.OK:
                return _json_object(body, asked, answer)
            raise self._refusal(asked, answer, body, token)
        raise failure

    def _read(self, answer: httpx.Response, asked: str, deadline: float) -> bytes:
        body = bytearray()
        for piece in answer.iter_bytes():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise HmsInvalidResponse(f"{asked}: the answer is larger than {MAX_ANSWER_BYTES >> 20} MiB")
            if self._monotonic() > deadline:
                raise HmsUnavailable(f"{asked}: the answer came too slowly ({len(body)} bytes so far)")
        return bytes(body)

    def _refusal(self, asked: str, answer: httpx.Response, body: bytes, token: SecretStr) -> HmsError:
        """The error that an answer other than 200 stands for."""
        status = answer.status_code
        answered = f"{asked}: answered {status}{_said(answer, body, token)}"
        if status in (401, 403):
            return HmsUnauthorized(
                f"{answered}: 100ms refuses the access key, the secret or the token. Compare HMS_ACCESS_KEY and "
                "HMS_SECRET (or HMS_MANAGEMENT_TOKEN, which also expires) with the 100ms dashboard, Developer section"
                + self._skew_hint()
            )
        if status == 404 and not _is_html(body):
            return HmsNotFound(
                answered + ("; is HMS_API_URL right, with its /v2?" if asked.endswith(LIST) else "")
            )
        if status == 429:
            return HmsRateLimited(answered, self._retry_after(answer))
        if status == 408 or status >= 500:
            return HmsUnavailable(answered, self._retry_after(answer))
        if answer.has_redirect_location:
            host = _host(answer.headers["Location"])
            answered += f", a redirect to {host}, which is not followed; is HMS_API_URL right?"
        if 400 <= status < 500 and status != 404:
            return HmsBadRequest(answered)
        return HmsInvalidResponse(answered)  # a 404 in HTML comes from something between us and the API

    def _retry_after(self, answer: httpx.Response) -> timedelta | None:
        text = answer.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
            wait = timedelta(seconds=float(text))
        elif (at := _http_date(text)) is not None:  # by the API's own clock, when it tells
            wait = at - (_http_date(answer.headers.get("Date", "")) or self.api_time() or self._clock())
        else:
            return None
        return min(max(wait, timedelta(0)), MAX_RETRY_AFTER)

    def _note_clock(self, answer: httpx.Response, sent_at: datetime) -> None:
        there = _http_date(answer.headers.get("Date", ""))
        if there is None:
            return
        there += timedelta(seconds=0.5)  # `Date` has its fraction cut off
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


# -- what was asked -------------------------------------------------------------------------------------------
def _asset_path(asset_id: str) -> str:
    """Dots are quoted too: `..` as an id is no way up the path."""
    return f"{LIST}/{quote(asset_id, safe='', errors='replace').replace('.', '%2E')}"


def _asked(path: str) -> str:
    return f"100ms API, GET {path[:200]}"


def _context(api_url: str, authorities: Path | None) -> ssl.SSLContext:
    """Plain HTTP needs none, and is spared reading the authorities."""
    if urlsplit(api_url).scheme != "https":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return trust.context(authorities or trust.authorities())


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -- what was answered ----------------------------------------------------------------------------------------
def _json_object(body: bytes, asked: str, answer: httpx.Response) -> Mapping[str, Any]:
    try:
        value = json.loads(
            body, parse_constant=lambda _: None
        )  # NaN is no JSON; one odd number hides no asset
        if b"\\ud" in body or b"\\uD" in body:  # half a surrogate pair could be stored nowhere
            value = json.loads(
                json.dumps(value, ensure_ascii=False)
                .encode("utf-16", "surrogatepass")
                .decode("utf-16", "replace")
            )
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    kind = "an HTML page" if _is_html(body) else f"{len(body)} bytes that are no JSON object"
    raise HmsInvalidResponse(
        f"{asked}: answered 200 with {kind} ({answer.headers.get('Content-Type', 'no content type')[:80]})"
    )


def _page(body: Mapping[str, Any]) -> tuple[Page, bool]:
    """The page, and whether it had as many rows as it could. An answer with `last` or `limit` and no `data` is
    taken as `data` null: encoders that leave out what is empty are common."""
    rows = body.get("data")
    last = body.get("last")
    if not body.keys() & {"data", "last", "limit"}:
        raise HmsInvalidResponse(f"{_asked(LIST)}: answered 200 without `data`")
    if not isinstance(rows, list | None) or not isinstance(last, str | None):
        raise HmsInvalidResponse(
            f"{_asked(LIST)}: answered 200 with a `data` that is no list or a `last` that is no text"
        )
    rows = rows or []
    limit = body.get("limit")
    limit = limit if isinstance(limit, int) and 1 <= limit <= PAGE_ROWS else PAGE_ROWS
    assets = []
    for row in rows:
        try:
            assets.append(Asset.parse(row))
        except (ValidationError, TypeError):  # TypeError: the row is no object
            continue
    page = Page(
        assets=tuple(assets),
        next_start=last or None,
        invalid_rows=len(rows) - len(assets),
    )
    return page, len(rows) >= limit


def _asset(body: Mapping[str, Any], asset_id: str) -> Asset:
    if body.get("id") == asset_id:
        try:
            return Asset.parse(body)
        except ValidationError:
            pass
    raise HmsInvalidResponse(f"{_asked(_asset_path(asset_id))}: answered 200 without this asset's `id`")


def _signed_url(body: Mapping[str, Any], asset_id: str) -> SignedUrl:
    url = body.get("url")
    if isinstance(url, str) and url.strip() and body.get("id") in (asset_id, "", None):
        return SignedUrl.model_validate(body)
    what = "the URL of another asset" if isinstance(url, str) and url.strip() else "no `url`"
    raise HmsInvalidResponse(f"{_asked(_asset_path(asset_id))}/presigned-url: answered 200 with {what}")


def _said(answer: httpx.Response, body: bytes, token: SecretStr) -> str:
    """What the API says of an error, for people: its documented `message` and `details`, its request id. Cut
    short, one line, without our token and without the query of any URL."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        error = None
    parts: list[object] = []
    if isinstance(error, dict):
        details = error.get("details")
        parts += [error.get("message"), *(details if isinstance(details, list) else [])]
    elif _is_html(body):
        parts.append("an HTML page")
    if request_id := answer.headers.get("X-Request-Id"):
        parts.append(f"request id {request_id}")
    text = "; ".join(part for part in parts if isinstance(part, str) and part)
    text = text.replace(token.get_secret_value(), "[token]")
    text = _QUERY.sub("?[query]", _JWT.sub("[token]", text))
    text = "".join(c if c.isprintable() else " " for c in text)
    return f" ({text[:300]})" if text else ""


def _is_html(body: bytes) -> bool:
    return body[:512].lstrip().startswith(b"<")


def _host(location: str) -> str:
    try:
        return urlsplit(location).hostname or "the same host"
    except ValueError:
        return "an address that is none"


def _http_date(text: str) -> datetime | None:
    try:
        parsed = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
