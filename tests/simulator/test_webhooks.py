from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from archiver.hms.auth import ManagementToken
from archiver.hms.client import HmsClient
from tests.simulator.process import Simulator, running_simulator
from tests.walkthrough.user import until

Received = SimpleQueue[tuple[dict[str, str], bytes]]


@contextmanager
def _receiver(statuses: Iterator[int]) -> Iterator[tuple[str, Received]]:
    received: Received = SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(next(statuses))
            self.send_header("content-length", "0")
            self.end_headers()
            received.put((dict(self.headers.items()), body))

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", received
        finally:
            server.shutdown()
            thread.join()


def _event(simulator: Simulator, kind: str) -> dict[str, Any]:
    job = simulator.asset(kind)["row"]["job_id"]
    (event,) = (
        entry["event"] for entry in simulator.webhooks() if entry["event"]["data"]["recording_id"] == job
    )
    found: dict[str, Any] = event
    return found


def test_a_vod_is_announced_with_its_asset_and_its_signed_thumbnails(
    simulator: Simulator, client: httpx.Client
) -> None:
    asset = simulator.asset("vod-fmp4")
    event = _event(simulator, "vod-fmp4")

    thumbnails = event["data"]["recording_thumbnails"]
    assert event["type"] == "hls.recording.success"
    assert event.keys() >= {"version", "id", "account_id", "timestamp", "type", "data"}
    assert [file["asset_id"] for file in event["data"]["recording_single_files"]] == [asset["id"]]
    assert [thumbnail["location"] for thumbnail in thumbnails] == asset["row"]["thumbnails"]
    assert all(
        thumbnail.keys() == {"url", "location", "offset", "width", "height"} for thumbnail in thumbnails
    )
    assert [client.get(thumbnail["url"]).content[:4] for thumbnail in thumbnails] == [b"\x89PNG"] * 2


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        ("composite", "beam.recording.success"),
        ("composite-legacy", "recording.success"),
        ("stream", "stream.recording.success"),
        ("track-audio", "track.recording.success"),
        ("transcript-srt", "transcription.success"),
    ],
)
def test_each_type_has_its_own_event(simulator: Simulator, kind: str, type_: str) -> None:
    event = _event(simulator, kind)

    row = simulator.asset(kind)["row"]
    assert event["type"] == type_
    assert (event["data"]["room_id"], event["data"]["session_id"]) == (row["room_id"], row["session_id"])


def test_a_transcription_names_the_asset_of_its_output(simulator: Simulator) -> None:
    event = _event(simulator, "transcript-srt")

    assert event["data"]["transcript_srt_asset_id"] == simulator.asset("transcript-srt")["id"]


def test_events_are_posted_with_the_secret_header() -> None:
    with (
        _receiver(iter([200] * 10)) as (url, received),
        running_simulator(
            "minimal", webhook_url=url, webhook_header="x-hook", webhook_secret="hush"
        ) as simulator,
    ):
        headers, body = received.get(timeout=30)
        simulator.add_asset("stream")
        _, later = received.get(timeout=30)

    assert headers["x-hook"] == "hush"
    assert b'"beam.recording.success"' in body
    assert b'"stream.recording.success"' in later


def test_an_event_that_was_not_taken_is_posted_again() -> None:
    with _receiver(iter([500, 200])) as (url, received), running_simulator("minimal", webhook_url=url):
        first = received.get(timeout=30)[1]
        second = received.get(timeout=30)[1]

    assert first == second


def test_what_nobody_took_is_in_the_history_and_the_client_reads_it() -> None:
    with (
        _receiver(iter([500, 200])) as (url, received),
        running_simulator("empty", webhook_url=url, webhook_retries=0) as simulator,
        HmsClient(
            simulator.api_url, ManagementToken(simulator.access_key, SecretStr(simulator.secret))
        ) as client,
    ):
        simulator.add_asset("composite")
        received.get(timeout=30)
        simulator.add_asset("stream")
        received.get(timeout=30)
        now = datetime.now(UTC)

        def failed() -> list[str]:
            return [event.type for event in client.failed_deliveries(now - timedelta(hours=1), now)]

        until(lambda: bool(failed()), seconds=20, what="the delivery that failed")
        assert failed() == ["beam.recording.success"]
