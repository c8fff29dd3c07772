"""The sweep: enter every asset that the API lists into the ledger.

The API has no time filter and documents no order (100ms-api.md), so a sweep reads every page. Only once a full walk has
observed that the newest assets come first, the sweeps in between stop where all assets are long known. A full walk
happens every FULL_WALK_EVERY all the same; it finds what a page shift, an equal timestamp or a late status hid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import structlog

from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.destinations import breaker
from archiver.core.judging import Scope
from archiver.core.locks import Lock, acquire
from archiver.core.upkeep.failed_later import Statuses
from archiver.core.workspaces import check_workspace
from archiver.hms.base import RecordingAssets, TellsTime
from archiver.hms.models import Page, parse_time
from archiver.ledger.base import Facts, Ledger
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

FULL_WALK_EVERY = timedelta(hours=6)
OVERLAP = timedelta(hours=1)  # a short walk reads on this far before the start of the last sweep
LOCK_TTL = timedelta(minutes=5)  # extended at every page; one page takes seconds, its retries a few minutes
FACT = "sweep"
RUNNING_FACT = "sweep_running"
UNFINISHED_FACT = "sweep_unfinished"
LOCK_NAME = "sweep"

NOTHING_LISTED_UNTIL = "nothing_listed_until"
"""In the fact, when the API lists nothing: until when it keeps what is known. No time at which anything happened."""
RECORDED_TIMES = ("at", "began_at", "ended_at", "full_at", "started_at")
"""The names under which facts in the ledger hold times."""


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """A sweep that is running. Expires LOCK_TTL after the last page, if its process was killed."""

    started_at: datetime
    at: datetime  # of the last page
    pages: int
    assets: int
    begun: int = 1  # sweeps begun since one ended, with this one: several mean that they are killed, or fail


def sweep_progress(ledger: Facts) -> SweepProgress | None:
    """Return the sweep that is running; None when none is. Raises LedgerError."""
    fact = ledger.recall(RUNNING_FACT)
    if fact is None:
        return None
    started_at, at = parse_time(fact.get("started_at")), parse_time(fact.get("at"))
    pages, assets = fact.get("pages"), fact.get("assets")
    if started_at is None or at is None or not isinstance(pages, int) or not isinstance(assets, int):
        return None
    return SweepProgress(started_at, at, pages, assets, _begun(ledger))


def _begun(ledger: Facts) -> int:
    begun = (ledger.recall(UNFINISHED_FACT) or {}).get("begun")
    return begun if isinstance(begun, int) else 1


def recorded_in_future(fact: Mapping[str, object] | None, now: datetime) -> bool:
    """Return whether a fact in the ledger is dated later than `now`: a clock was set back, or was wrong. Pure."""
    times = (parse_time((fact or {}).get(name)) for name in RECORDED_TIMES)
    return any(time is not None and time - now > CLOCK_TOLERANCE for time in times)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """One walk over the API's pages."""

    pages: int
    assets: int  # rows, repeated ones too
    new: int
    invalid_rows: int  # without a usable id
    full: bool  # every page was read
    newest_first: bool | None  # the order of this walk; None: too few assets to tell
    seconds: float


class Sweeper:
    def __init__(
        self,
        *,
        api: RecordingAssets,
        ledger: Ledger,
        scope: Scope,
        clock: Callable[[], datetime],
        rebuild: Callable[[], object],
        workspace: str | None = None,
    ) -> None:
        """`workspace`: that of our credentials (`hms.workspace`), when it is known.

        `rebuild` enters what the buckets hold; called when the ledger is empty."""
        self._api = api
        self._ledger = ledger
        self._scope = scope
        self._clock = clock
        self._rebuild = rebuild
        self._workspace = workspace

    def sweep(self, *, full: bool = False) -> SweepResult | None:
        """Enter every listed asset, and judge known ones again. Returns None when another sweep is running. Idempotent.
        Memory: one page. Raises HmsError, LedgerError,
        LedgerOfAnotherWorkspace; pages entered before stay entered."""
        with acquire(self._ledger, LOCK_NAME, LOCK_TTL) as lock:
            if lock is None:
                return None
            try:
                return self._walk(lock, full=full)
            finally:
                self._ledger.forget(RUNNING_FACT)

    def _walk(self, lock: Lock, *, full: bool) -> SweepResult:
        started = self._clock()
        before = self._ledger.recall(UNFINISHED_FACT)
        self._ledger.remember(UNFINISHED_FACT, {"begun": _begun(self._ledger) + 1 if before else 1})
        self._note_progress(started, pages=0, assets=0)
        if self._ledger.counts().seen == 0:
            self._rebuild_from_buckets()
        last = self._ledger.recall(FACT) or {}
        stop_before = None if full else _known_before(last, started)
        statuses = Statuses(self._api, self._ledger, self._scope)
        order = _Order()
        pages = assets = new = invalid_rows = 0
        complete = True
        for page in self._api.pages():
            lock.extend()
            if pages == 0:
                self._note_answer()
                check_workspace(self._ledger, self._workspace, page.assets)
            entered = self._ledger.discover(statuses.judged(page.assets, self._now()))
            pages, assets = pages + 1, assets + len(page.assets)
            new, invalid_rows = new + entered, invalid_rows + page.invalid_rows
            self._note_progress(started, pages, assets)
            order.observe(page)
            if stop_before and not entered and page.next_start and order.all_before(page, stop_before):
                complete = False
                break
        result = SweepResult(
            pages=pages,
            assets=assets,
            new=new,
            invalid_rows=invalid_rows,
            full=complete,
            newest_first=order.newest_first,
            seconds=(self._clock() - started).total_seconds(),
        )
        listed_nothing = not assets and not invalid_rows
        self._remember(
            last,
            result,
            started,
            failed_later=statuses.remember(full=complete),
            deadline=self._ledger.latest_deadline() if listed_nothing else None,
        )
        if invalid_rows:
            log.error("assets_without_id", count=invalid_rows)
        counts = self._ledger.counts()
        if not counts.balanced:
            log.error("ledger_out_of_balance", seen=counts.seen, states=dict(counts.states))
        log.info("sweep_ended", **asdict(result))
        return result

    def _rebuild_from_buckets(self) -> None:
        """An optimisation: without it each asset finds its own manifest."""
        try:
            self._rebuild()
        except StorageError as error:
            log.warning("ledger_not_rebuilt", reason=str(error))

    def _note_progress(self, started: datetime, pages: int, assets: int) -> None:
        times = {"started_at": started.isoformat(), "at": self._clock().isoformat()}
        self._ledger.remember(RUNNING_FACT, {**times, "pages": pages, "assets": assets}, lifetime=LOCK_TTL)

    def _remember(
        self,
        earlier: Mapping[str, object],
        result: SweepResult,
        started: datetime,
        *,
        failed_later: int,
        deadline: datetime | None,
    ) -> None:
        """Keep what only a full walk can tell from the last full one. `deadline`: until when 100ms keeps what it
        does not list; None: it lists something, or nothing is known."""
        before = earlier.get("garbled")
        invalid_rows = max(result.invalid_rows, before if isinstance(before, int) and not result.full else 0)
        now, api = self._clock(), self._api_time()
        self._ledger.forget(UNFINISHED_FACT)
        self._ledger.remember(
            FACT,
            {
                **asdict(result),
                "garbled": invalid_rows,
                "failed_later": failed_later,
                NOTHING_LISTED_UNTIL: deadline.isoformat() if deadline is not None else None,
                "started_at": started.isoformat(),
                "ended_at": now.isoformat(),
                "full_at": started.isoformat() if result.full else earlier.get("full_at"),
                "newest_first": result.newest_first if result.full else earlier.get("newest_first"),
                "clock_ahead_seconds": None if api is None else round((now - api).total_seconds(), 1),
            },
        )

    def _api_time(self) -> datetime | None:
        return self._api.api_time() if isinstance(self._api, TellsTime) else None

    def _now(self) -> datetime:
        """The later of the ledger's clock and the API's: a `created_at` beyond it is not believed."""
        now = self._clock()
        return max(now, self._api_time() or now)

    def _note_answer(self) -> None:
        """Note that the API accepts our credentials: a refusal on one machine is then that machine's."""
        now = self._clock()
        breaker.note_success(self._ledger, breaker.opened(self._ledger, now), breaker.API)
        half_open = breaker.half_open(self._ledger.recall_all(breaker.PREFIX), now)
        breaker.close_half_open(self._ledger, half_open, breaker.API, machine="")


class _Order:
    """The order of `created_at` along a walk."""

    def __init__(self) -> None:
        self._previous: datetime | None = None
        self._descents = 0
        self._broken = False

    def observe(self, page: Page) -> None:
        for asset in page.assets:
            if asset.created_at is None:
                self._broken = True
                continue
            if self._previous is not None:
                self._broken = self._broken or asset.created_at > self._previous
                self._descents += asset.created_at < self._previous
            self._previous = asset.created_at

    @property
    def newest_first(self) -> bool | None:
        if self._broken:
            return False
        return True if self._descents else None

    def all_before(self, page: Page, moment: datetime) -> bool:
        """Return whether the order held so far, and all of this page is older: a short walk may end."""
        return not self._broken and all(
            asset.created_at and asset.created_at < moment for asset in page.assets
        )


def _known_before(last: Mapping[str, object], now: datetime) -> datetime | None:
    """The time before which all assets are known, if a short walk is allowed now; None: read all pages."""
    if last.get("newest_first") is not True:
        return None
    full_at, started_at = parse_time(last.get("full_at")), parse_time(last.get("started_at"))
    if full_at is None or started_at is None or now - full_at >= FULL_WALK_EVERY:
        return None
    if recorded_in_future(last, now):
        return None
    return started_at - OVERLAP
