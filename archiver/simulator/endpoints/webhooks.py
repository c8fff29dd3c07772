"""The events that 100ms would send, for reading, and sent to a URL if there is one."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from archiver.simulator.recordings.assets import Asset, hexadecimal, storage_path
from archiver.simulator.workspace import Workspace

# as documented: 3 retries
RETRIES_AFTER_SECONDS = (1.0, 3.0, 10.0)
_EVENTS = {
    "room-composite": "beam.recording.success",
    "room-composite-legacy": "recording.success",
    "room-vod": "hls.recording.success",
    "stream": "stream.recording.success",
    "track": "track.recording.success",
    "transcript": "transcription.success",
    "summary": "transcription.success",
}
_log = logging.getLogger("archiver.simulator.webhooks")


def event_of(workspace: Workspace, asset: Asset) -> dict[str, Any] | None:
    """Return the event of a completed asset, its URLs signed now; None for types without one."""
    type_ = _EVENTS.get(str(asset.row["type"]))
    if type_ is None or asset.main is None:
        return None
    row = asset.row
    data: dict[str, Any] = {
        "recording_id": row["job_id"],
        "room_id": row["room_id"],
        "session_id": row["session_id"],
        "recording_path": row["path"],
        "size": row["size"],
        "duration": row["duration"],
    }
    if type_ == "hls.recording.success":
        data["recording_single_files"] = [{"asset_id": asset.id, "path": row["path"], "size": row["size"]}]
        data["recording_thumbnails"] = [
            {
                "url": workspace.thumbnail_url(asset, thumbnail),
                "location": storage_path(asset.bucket, f"{asset.folder}/{thumbnail.name}"),
                "offset": thumbnail.offset_seconds,
                "width": thumbnail.width,
                "height": thumbnail.height,
            }
            for thumbnail in asset.thumbnails
        ]
    elif type_ == "transcription.success":
        name = "summary_json" if row["type"] == "summary" else f"transcript_{row['metadata']['output_mode']}"
        data[f"{name}_asset_id"] = asset.id
    return {
        "version": "2.0",
        "id": hexadecimal("event", asset.id),
        "account_id": hexadecimal("account"),
        "app_id": hexadecimal("app"),
        "timestamp": datetime.fromtimestamp(workspace.clock.storage_seconds(), UTC).isoformat(),
        "type": type_,
        "data": data,
    }


@dataclass(frozen=True)
class Ended:
    """A delivery that was taken, or given up: then with the reason."""

    event: dict[str, Any]
    seconds: float  # since 1970, by the storage's clock
    error: str | None

    def row(self, url: str) -> dict[str, Any]:
        """As `GET /analytics/webhooks` shows it."""
        outcome = "success" if self.error is None else "failed"
        payload = {
            "event_data": self.event["data"],
            "webhook_url": url,
            "original_event_name": self.event["type"],
        }
        return {
            "event_id": self.event["id"],
            "event_name": f"reporter.webhook.delivery.{outcome}",
            "room_id": self.event["data"]["room_id"],
            "event_timestamp": datetime.fromtimestamp(self.seconds, UTC).isoformat(),
            "payload": payload if self.error is None else {**payload, "error_reason": self.error},
        }


class Deliveries:
    """Posts events to the configured URL, each in the background, and remembers what was answered."""

    def __init__(self, workspace: Workspace) -> None:
        self.ended: deque[Ended] = deque(maxlen=10_000)
        self._workspace = workspace
        self._tasks: set[asyncio.Task[None]] = set()
        self.answers: dict[str, list[str]] = {}

    def send(self, asset: Asset) -> None:
        """Send the event, if there is a URL. A receiver that never answers 200 loses it, as with 100ms."""
        event = event_of(self._workspace, asset)
        if self._workspace.config.webhook_url is None or event is None:
            return
        task = asyncio.get_running_loop().create_task(
            self._deliver(self._workspace.config.webhook_url, event)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Drop what is not delivered yet."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, url: str, event: dict[str, Any]) -> None:
        import httpx  # a tenth of the start of a simulator that sends nothing

        headers = {self._workspace.config.webhook_header: self._workspace.config.webhook_secret}
        answers = self.answers.setdefault(str(event["id"]), [])
        async with httpx.AsyncClient(timeout=10.0) as client:
            for pause in (0.0, *RETRIES_AFTER_SECONDS[: self._workspace.config.webhook_retries]):
                await asyncio.sleep(pause)
                try:
                    status = (await client.post(url, json=event, headers=headers)).status_code
                except httpx.HTTPError as error:
                    answers.append(type(error).__name__)
                    continue
                answers.append(str(status))
                if status == 200:
                    self._end(event, None)
                    return
        self._end(event, answers[-1])
        _log.warning("webhook %s was not accepted: %s", event["type"], ", ".join(answers))

    def _end(self, event: dict[str, Any], error: str | None) -> None:
        self.ended.append(Ended(event, self._workspace.clock.storage_seconds(), error))
