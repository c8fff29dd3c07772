"""The client of the 100ms recording-asset API: paging, retries, and tokens that are replaced when refused."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import SecretStr

from archiver.hms.auth import BACKDATED, Clock, TokenProvider, utc_now
from archiver.hms.errors import (
    HmsBadRequest,
    HmsError,
    HmsInvalidResponse,
    HmsNotFound,
    HmsUnauthorized,
    HmsUnavailable,
    HmsUntrusted,
)
from archiver.hms.models import Asset, Page, SignedUrl
from archiver.hms.responses import (
    LIST,
    PAGE_ROWS,
    asset_path,
    endpoint,
    read_asset,
    read_page,
    read_signed_url,
)
from archiver.hms.sessions import Session, read_room_name, read_session, room_path, session_path
from archiver.hms.transport import TIMEOUTS, Query, Timeouts, Transport
from archiver.hms.webhooks import EVENTS, WEBHOOK_HISTORY, RecordingEvent, read_failed_deliveries
from archiver.limits.rate_limit import RateLimit
from archiver.retry_policy import API_CALL, RetryPolicy

T = TypeVar("T")

DELIVERY_PAGES = 100
"""Pages of failed deliveries that are read at once: an outage of days; the sweep finds the assets of the rest."""

_log = logging.getLogger(__name__)


class HmsClient:
    """Implements `hms.base.RecordingAssets` and `TellsTime`. Thread-safe; create it after a fork, and close it.

    Every method raises HmsError only. Every call is idempotent: the client only reads. `authorities`: the PEM file that
    certificates are verified by; None: `trust.authorities()`. `limit`: of requests, shared with other processes.
    """

    def __init__(
        self,
        api_url: str,
        tokens: TokenProvider,
        *,
        authorities: Path | None = None,
        policy: RetryPolicy = API_CALL,
        timeouts: Timeouts = TIMEOUTS,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        limit: RateLimit | None = None,
        chance: Callable[[], float] = random.random,  # in [0, 1), for the jitter
    ) -> None:
        self._transport = Transport(
            api_url, timeouts, authorities=authorities, clock=clock, monotonic=monotonic
        )
        self._tokens = tokens
        self._policy = policy
        self._timeouts = timeouts
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._limit = limit
        self._chance = chance
        self._own_clock_is_right = False  # the API refused tokens dated by its own `Date`, and accepted ours

    # -- hms.base.RecordingAssets --------------------------------------------------------------------------
    def pages(
        self,
        *,
        room_id: str | None = None,
        session_id: str | None = None,
        status: str | None = None,
        start: str | None = None,
    ) -> Iterator[Page]:
        """See `RecordingAssets.pages`. The walk ends as follows:

        - `last` is null, empty or absent, or there are no rows: the documented ends. No rows, yet a new `last`: one
          more page is requested; two pages without rows end it.
        - Fewer rows than the limit, yet a `last`: also a documented end. One more page is requested all the same: a
          request is cheaper than an asset that is never seen. After such a page, a `last` that is refused, unknown or
          repeated ends the walk.
        - A repeated `last` after full pages: HmsInvalidResponse. The walk would never end, and assets after the loop
          have not been seen.
        """
        filters = {"room_id": room_id, "session_id": session_id, "status": status}
        asked = {name: value for name, value in filters.items() if value is not None}
        starts: set[str] = set() if start is None else {start}
        ended = empty = False  # a page was a documented end, and one more is requested
        while True:
            query = {**asked, "limit": str(PAGE_ROWS)} | ({} if start is None else {"start": start})
            try:
                page, full = self._call(LIST, query, read_page)
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
                    f"{endpoint(LIST)}: after {len(starts)} pages the same `last` ({start[:80]!r}) came again, so the "
                    "list would never end; assets after it have not been seen. Retry; if it persists, tell 100ms"
                )
            starts.add(start)

    def asset(self, asset_id: str) -> Asset:
        return self._call(asset_path(asset_id), {}, lambda body: read_asset(body, asset_id))

    def sign(self, asset_id: str, duration: timedelta = timedelta(hours=1)) -> SignedUrl:
        query = {"presign_duration": str(int(duration.total_seconds()))}
        return self._call(
            f"{asset_path(asset_id)}/presigned-url", query, lambda body: read_signed_url(body, asset_id)
        )

    # -- hms.base.WebhookHistory ---------------------------------------------------------------------------
    def failed_deliveries(self, since: datetime, until: datetime) -> Iterator[RecordingEvent]:
        """See `WebhookHistory.failed_deliveries`. Where the filter by name is refused, all are read."""
        asked: dict[str, str | list[str]] = {
            "start_time": _rfc_3339(since),
            "end_time": _rfc_3339(until),
            "status": "failed",
            "limit": str(PAGE_ROWS),
        }
        names: dict[str, list[str]] = {"event_names": sorted(EVENTS)}
        for page in range(1, DELIVERY_PAGES + 1):
            query = {**asked, "page": str(page)}
            try:
                events, more = self._call(WEBHOOK_HISTORY, {**query, **names}, read_failed_deliveries)
            except HmsBadRequest as error:
                if not names or page > 1:
                    raise
                _log.info("webhook_filter_refused", extra={"reason": str(error)})
                names = {}
                events, more = self._call(WEBHOOK_HISTORY, query, read_failed_deliveries)
            yield from (event for event in events if event.type in EVENTS)
            if not more:
                return
        _log.warning("failed_deliveries_cut", extra={"pages": DELIVERY_PAGES})

    # -- hms.base.Sessions ---------------------------------------------------------------------------------
    def session(self, session_id: str) -> Session:
        return self._call(session_path(session_id), {}, lambda body: read_session(body, session_id))

    def room_name(self, room_id: str) -> str | None:
        return self._call(room_path(room_id), {}, read_room_name)

    # -- for `doctor` --------------------------------------------------------------------------------------
    def check(self) -> None:
        """Make the smallest authenticated call. Returns when the API answers and accepts the credentials."""
        self._call(LIST, {"limit": "10"}, read_page)

    def clock_skew(self) -> timedelta | None:
        """See `Transport.clock_skew`."""
        return self._transport.clock_skew()

    # -- hms.base.TellsTime --------------------------------------------------------------------------------
    def api_time(self) -> datetime | None:
        return self._transport.api_time()

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    # -- one call ------------------------------------------------------------------------------------------
    def _await_turn(self) -> None:
        if self._limit is not None and (seconds := self._limit.reserve(1)) > 0:
            self._sleep(seconds)

    def _call(self, path: str, query: Query, read: Callable[[Mapping[str, Any]], T]) -> T:
        """GET `path` and return what `read` makes of it. Retry by the policy, and with a new token after 401 or 403."""
        self._await_turn()
        deadline = self._monotonic() + self._timeouts.call.total_seconds()
        token = self._tokens.token(self._token_time())
        refusals = 0
        attempt = 1
        while True:
            failure: HmsUnavailable | HmsInvalidResponse
            try:
                return read(self._transport.get(path, query, token, deadline))
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
            self._await_turn()
            attempt += 1

    def _token_time(self) -> datetime:
        """Return the time to date a token by: the API's, so that ours may be wrong; ours before its first response."""
        theirs = None if self._own_clock_is_right else self.api_time()
        return theirs or self._clock()

    def _other_token(self, refused: SecretStr, refusals: int) -> SecretStr | None:
        """Return a new token; after that, where the clocks differ, one by the other clock (a proxy may write a wrong
        `Date`)."""
        if refusals == 1:
            return self._tokens.replacement(refused, self._token_time())
        theirs = self.api_time()
        if theirs is None or abs(theirs - self._clock()) < BACKDATED:
            return None
        self._own_clock_is_right = not self._own_clock_is_right
        return self._tokens.replacement(refused, self._token_time()) if refusals == 2 else None

    def _wait(self, attempt: int, failure: HmsError) -> float:
        if isinstance(failure, HmsUnavailable) and failure.retry_after is not None:
            spread = self._policy.base * self._chance()  # jitter: not all workers at one moment
            return (failure.retry_after + spread).total_seconds()
        return self._policy.pause(attempt, self._chance()).total_seconds()


def _rfc_3339(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
