"""Read 100ms webhooks: they bring signed thumbnail URLs, which the API does not, and announce new assets.

A webhook is a hint; only the listing is complete. Webhooks are not signed: the caller must check the secret header
before `parse_event`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr

from archiver.hms.errors import HmsInvalidResponse
from archiver.hms.models import storage_path

WEBHOOK_HISTORY = "/analytics/webhooks"

EVENTS = frozenset(
    {
        "beam.recording.success",
        "hls.recording.success",
        "recording.success",
        "stream.recording.success",
        "track.recording.success",
        "transcription.success",
    }
)
"""Events that announce assets (100ms's webhook reference)."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class SignedThumbnail(_Part):
    """One thumbnail of a recording. `location` is its storage path, as in the asset's `thumbnails`; `url` is a
    secret; `offset` is where in the recording it was taken (the documentation names no unit)."""

    location: str
    url: SecretStr
    offset: float | None = None
    width: int | None = None
    height: int | None = None


class RecordingEvent(_Part):
    """One event. `asset_ids`: in the order found, each once; when empty, list the session's assets."""

    type: str
    room_id: str | None
    session_id: str | None
    recording_id: str | None
    asset_ids: tuple[str, ...]
    thumbnails: tuple[SignedThumbnail, ...]


def parse_event(body: bytes | str) -> RecordingEvent:
    """Parse a webhook's body, leaving out what is missing or invalid. Raises HmsInvalidResponse when it is not a JSON
    object with a `type`."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        payload = None
    kind = payload.get("type") if isinstance(payload, dict) else None
    if not isinstance(kind, str) or not kind:
        raise HmsInvalidResponse("100ms webhook: the body is no JSON object with a `type`")
    data = payload.get("data")
    return _event(kind, data if isinstance(data, dict) else {})


def read_failed_deliveries(body: Mapping[str, Any]) -> tuple[list[RecordingEvent], bool]:
    """Return the events of one page of `GET /analytics/webhooks?status=failed`, and whether another page follows. Rows
    without the name of an event are left out. Raises HmsInvalidResponse when `events` is no list.

    Source: 100ms's API reference, Analytics, "List Webhook Events". Its example has ids in `payload.event_data`."""
    rows = body.get("events")
    if not isinstance(rows, list | None) or "events" not in body:
        raise HmsInvalidResponse(f"100ms API, GET {WEBHOOK_HISTORY}: answered 200 without a list `events`")
    events = []
    for row in _objects(body, "events"):
        payload = row.get("payload")
        payload = payload if isinstance(payload, dict) else {}
        data = payload.get("event_data")
        data = data if isinstance(data, dict) else {}
        kind = _text(payload, "original_event_name") or _text(row, "event_name")
        if kind is not None:
            room_id = _text(row, "room_id")
            events.append(_event(kind, {"room_id": room_id, **data} if room_id else data))
    pagination = body.get("pagination")
    more = isinstance(pagination, dict) and pagination.get("has_next") is True
    return events, more and bool(rows)


def _event(kind: str, data: Mapping[str, Any]) -> RecordingEvent:
    return RecordingEvent(
        type=kind,
        room_id=_text(data, "room_id"),
        session_id=_text(data, "session_id"),
        recording_id=_text(data, "recording_id"),
        asset_ids=tuple(dict.fromkeys(_asset_ids(data))),
        thumbnails=tuple(_thumbnails(data)),
    )


def _asset_ids(data: Mapping[str, Any]) -> Iterator[str]:
    # transcription.success: transcript_txt_asset_id, summary_json_asset_id, ...
    for name, value in data.items():
        if name.endswith("asset_id") and isinstance(value, str) and value:
            yield value
    for file in _objects(data, "recording_single_files"):
        if asset_id := _text(file, "asset_id"):
            yield asset_id


def _thumbnails(data: Mapping[str, Any]) -> Iterator[SignedThumbnail]:
    for row in _objects(data, "recording_thumbnails"):
        location, url = _text(row, "location"), _text(row, "url")
        if location and url:
            yield SignedThumbnail(
                location=storage_path(location),
                url=SecretStr(url),
                offset=_number(row, "offset"),
                width=_whole(row, "width"),
                height=_whole(row, "height"),
            )


def _objects(data: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    rows = data.get(name)
    return (row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else iter(())


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    return value if isinstance(value, str) and value else None


def _number(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def _whole(data: Mapping[str, Any], name: str) -> int | None:
    number = _number(data, name)
    return None if number is None else int(number)
