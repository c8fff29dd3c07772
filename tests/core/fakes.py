"""A 100ms in this process, for tests of the core alone. Others speak the real protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from pydantic import SecretStr

from archiver.hms.errors import HmsError, HmsNotFound
from archiver.hms.models import Asset, Page, SignedUrl


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


class FakeApi:
    """hms.base.RecordingAssets over a list. `fail_on_page`: what the walk meets on that page, from 0. `clock`: its own;
    None when it does not tell the time."""

    def __init__(
        self,
        assets: Sequence[Asset] = (),
        page_size: int = 2,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.assets = list(assets)
        self.page_size = page_size
        self.clock = clock
        self.pages_read = 0
        self.fail_on_page: tuple[int, HmsError] | None = None
        self.before_page: Callable[[int], None] = lambda _: None

    def pages(
        self,
        *,
        room_id: str | None = None,
        session_id: str | None = None,
        status: str | None = None,
        start: str | None = None,
    ) -> Iterator[Page]:
        assets = [
            each
            for each in self.assets
            if session_id in (None, each.session_id) and room_id in (None, each.room_id)
        ]
        for number, at in enumerate(range(0, max(len(assets), 1), self.page_size)):
            self.before_page(number)
            if self.fail_on_page and self.fail_on_page[0] == number:
                raise self.fail_on_page[1]
            self.pages_read += 1
            rows = tuple(assets[at : at + self.page_size])
            more = at + self.page_size < len(assets)
            yield Page(assets=rows, next_start=rows[-1].id if more else None)

    def api_time(self) -> datetime | None:
        return self.clock() if self.clock else None

    def asset(self, asset_id: str) -> Asset:
        for asset in self.assets:
            if asset.id == asset_id:
                return asset
        raise HmsNotFound(f"GET /recording-assets/{asset_id}: 404")

    def sign(self, asset_id: str, duration: timedelta = timedelta(hours=1)) -> SignedUrl:
        return SignedUrl(id=asset_id, url=SecretStr(f"https://storage.example/{asset_id}?sig=1"), expiry=3600)
