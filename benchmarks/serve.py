"""What `archiver serve` costs: a scrape with many assets in the ledger, and webhooks at a rate.
`python -m benchmarks.serve --assets 1000000`.

Each webhook comes over a connection of its own and is timed from when it was to be sent. The API refuses connections,
as in a flood that comes with an outage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from urllib.request import urlopen

from pydantic import SecretStr

from archiver.core.upkeep import throughput
from archiver.ledger.models import AssetState, Seen
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from benchmarks.sweep import valkey

_SECRET = "benchmark-secret"  # noqa: S105 - of this run alone
_PAGE = 1000
_SCRAPES = 50


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--assets", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=200, help="webhooks a second")
    parser.add_argument("--seconds", type=int, default=20)
    asked = parser.parse_args()
    with valkey() as redis_url:
        ledger = RedisLedger(redis_url, Seal(SecretStr("benchmark")))
        _fill(ledger, asked.assets)
        started = time.monotonic()
        throughput.remember_forecast(ledger, ledger.now())
        _say(
            f"forecast and bytes by state (each 10 minutes, in the watch): {time.monotonic() - started:.2f} s"
        )
        with _serving(redis_url) as (url, metrics_url):
            _report(f"scrape, {asked.assets:,} assets", [_scrape(metrics_url) for _ in range(_SCRAPES)])
            asyncio.run(_send(url, asked.rate, 1))
            took, refused = asyncio.run(_send(url, asked.rate, asked.seconds))
            _report(f"webhook, {asked.rate}/s for {asked.seconds} s, {refused} refused", took)
        ledger.close()


def _fill(ledger: RedisLedger, count: int) -> None:
    now = ledger.now()
    for first in range(0, count, _PAGE):
        ledger.discover(
            [
                Seen(
                    f"{number:024x}",
                    "room-composite",
                    now + timedelta(seconds=number % 1_296_000),
                    AssetState.DISCOVERED if number % 10 == 0 else AssetState.SKIPPED,
                    created_at=now,
                    room_id=f"{number // 10:024x}",
                    session_id=f"{number // 2:024x}",
                    size_bytes=150_000_000,
                )
                for number in range(first, min(first + _PAGE, count))
            ]
        )


@contextmanager
def _serving(redis_url: str) -> Iterator[tuple[str, str]]:
    """The product's process: the addresses of its listeners."""
    environment = {
        **os.environ,
        "ARCHIVER_REDIS_URL": redis_url,
        "ARCHIVER_SERVE_PORT": "0",
        "ARCHIVER_METRICS_PORT": "0",
        "ARCHIVER_WEBHOOK_SECRET": _SECRET,
        "HMS_API_URL": "http://127.0.0.1:9/v2",
        "HMS_ACCESS_KEY": "benchmark",
        "HMS_SECRET": "benchmark-app-secret",
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "worker.cli", "serve"]
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                assert process.stdout is not None
                found = [re.search(r"http://\S+", process.stdout.readline()) for _ in range(2)]
                assert found[0] is not None
                assert found[1] is not None
                yield found[0][0], found[1][0]
            finally:
                process.terminate()


def _scrape(url: str) -> float:
    started = time.perf_counter()
    with urlopen(url) as answer:  # noqa: S310 - of our own process
        answer.read()
    return time.perf_counter() - started


async def _send(url: str, rate: int, seconds: int) -> tuple[list[float], int]:
    """Seconds that each answer took, and how many were not 200."""
    host, _, port = url.removeprefix("http://").partition(":")
    began = time.perf_counter() + 0.5
    answers = await asyncio.gather(
        *(_post(host, int(port), number, began + number / rate) for number in range(rate * seconds))
    )
    return [took for took, _ in answers], sum(status != "200" for _, status in answers)


async def _post(host: str, port: int, number: int, at: float) -> tuple[float, str]:
    await asyncio.sleep(max(0.0, at - time.perf_counter()))
    thumbnails = [{"url": "https://cdn/" + "x" * 400, "location": f"s3://b/{each}.jpg"} for each in range(5)]
    data = {
        "session_id": f"session-{number}",
        "recording_single_files": [{"asset_id": f"{number:024x}"}],
        "recording_thumbnails": thumbnails,
    }
    body = json.dumps({"type": "hls.recording.success", "data": data}).encode()
    head = (
        f"POST /webhooks/100ms HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nX-Archiver-Secret: {_SECRET}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(head.encode() + body)
    status = (await reader.readline()).split()[1].decode()
    await reader.read()
    writer.close()
    return time.perf_counter() - at, status


def _report(name: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    p50, p95, p99 = (ordered[int(share * (len(ordered) - 1))] * 1000 for share in (0.5, 0.95, 0.99))
    _say(f"{name}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, max {ordered[-1] * 1000:.1f} ms")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command-line program


if __name__ == "__main__":
    main()
