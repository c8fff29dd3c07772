"""The events that 100ms would send: to be read, and sent to a URL when there is one."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

from archiver.simulator.assets import Asset, hexadecimal, storage_path
from archiver.simulator.world import World

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


def event_of(world: World, asset: Asset) -> dict[str, Any] | None:
    """The event of a completed asset, its URLs signed now; None for types that 100ms announces with none."""
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
                "url": world.thumbnail_url(asset, thumbnail),
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
        "timestamp": datetime.fromtimestamp(world.clock.storage_seconds(), UTC).isoformat(),
        "type": type_,
        "data": data,
    }


class Deliveries:
    """Posts events to the configured URL, each in the background, and remembers what was answered."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks: set[asyncio.Task[None]] = set()
        self.answers: dict[str, list[str]] = {}

    def send(self, asset: Asset) -> None:
        """Does nothing without a URL. A receiver that never answers 200 loses the event, as with 100ms."""
        event = event_of(self._world, asset)
        if self._world.config.webhook_url is None or event is None:
            return
        task = asyncio.get_running_loop().create_task(self._deliver(self._world.config.webhook_url, event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """What is not delivered yet is lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, url: str, event: dict[str, Any]) -> None:
        import httpx  # a tenth of the start of a simulator that sends nothing

        headers = {self._world.config.webhook_header: self._world.config.webhook_secret}
        answers = self.answers.setdefault(str(event["id"]), [])
        async with httpx.AsyncClient(timeout=10.0) as client:
            for pause in (0.0, *RETRIES_AFTER_SECONDS):
                await asyncio.sleep(pause)
                try:
                    status = (await client.post(url, json=event, headers=headers)).status_code
                except httpx.HTTPError as error:
                    answers.append(type(error).__name__)
                    continue
                answers.append(str(status))
                if status == 200:
                    return
        _log.warning("webhook %s was not taken: %s", event["type"], ", ".join(answers))
