"""What the core needs of the 100ms API. Implemented by `hms.client.HmsClient`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from archiver.hms.models import Asset, Page, SignedUrl
from archiver.hms.sessions import Session
from archiver.hms.webhooks import RecordingEvent

DEFAULT_API_URL = "https://api.100ms.live/v2"


class RecordingAssets(Protocol):
    """The API's endpoints for recording assets."""

    def pages(
        self,
        *,
        room_id: str | None = None,
        session_id: str | None = None,
        status: str | None = None,
        start: str | None = None,
    ) -> Iterator[Page]:
        """Yield every page of `GET /recording-assets`, 100 assets each, with one request as the iterator advances.
        Pages may repeat or shift assets while new ones arrive. Raises HmsError."""
        ...

    def asset(self, asset_id: str) -> Asset:
        """Return `GET /recording-assets/<id>`. Raises HmsNotFound, HmsError."""
        ...

    def sign(self, asset_id: str, duration: timedelta = timedelta(hours=1)) -> SignedUrl:
        """Return a new pre-signed URL. Raises HmsNotFound, HmsError."""
        ...


@runtime_checkable
class TellsTime(Protocol):
    """An optional ability of RecordingAssets."""

    def api_time(self) -> datetime | None:
        """Return the time by the API's clock, to a second or so; None before its first response."""
        ...


class WebhookHistory(Protocol):
    """What 100ms could not deliver to a webhook's receiver."""

    def failed_deliveries(self, since: datetime, until: datetime) -> Iterator[RecordingEvent]:
        """Yield the recording events in `[since, until]` that no receiver took, page by page, MOST_DELIVERIES at most.
        100ms keeps 30 days, and answers for 14 at once. Raises HmsError."""
        ...


class Sessions(Protocol):
    """Who was in a session."""

    def session(self, session_id: str) -> Session:
        """Return `GET /sessions/<id>`. Raises HmsNotFound, HmsError."""
        ...

    def room_name(self, room_id: str) -> str | None:
        """Return the name in `GET /rooms/<id>`. Raises HmsNotFound, HmsError."""
        ...
