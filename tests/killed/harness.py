"""One asset at a source whose URLs end with the worker they were signed for, and its workers, one after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from archiver.core.records.keys import manifest_key
from archiver.hms.models import Asset
from archiver.ledger.redis.ledger import RedisLedger
from tests.core.examples import asset
from tests.killed.destinations import Destination
from tests.killed.fork_server import ForkServer, Worker
from tests.killed.sink import Moment, Seen
from tests.killed.worker import SEAL, TEMPLATE, Job, Report
from tests.transfer.origin import Origin, Reply, Request

ASSET_ID = "6400c0d3e1b2a3c4d5e6f708"
FOLDER = TEMPLATE.format(asset_id=ASSET_ID)
_FORK_SECONDS = 20.0  # a busy machine; a quiet one takes a millisecond


@dataclass
class Life:
    """`report` is None of a worker that was killed. `ranges`: what it asked of the source, by path."""

    report: Report | None
    seen: Seen
    ranges: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def source_bytes(self) -> int:
        return sum(stop - start for _, start, stop in self.ranges)

    def told(self) -> Report:
        assert self.report is not None, "it was killed"
        return self.report


class Harness:
    def __init__(
        self,
        fork_server: ForkServer,
        redis_url: str,
        origin: Origin,
        destination: Destination,
        path: str,
        **facts: Any,
    ) -> None:
        self.origin = origin
        self.destination = destination
        self._fork_server = fork_server
        self._redis_url = redis_url
        self._path = path
        self._asset = asset(id=ASSET_ID, **facts).raw
        self._lives = 0
        self.origin.always = self._signed_for_this_life

    def live(
        self,
        moment: Moment | None = None,
        *,
        parts: int | None = None,
        steps: int | None = None,
    ) -> Life:
        """The next worker, until its end. Without any of these it must come to a good one."""
        job = Job(
            asset=self._asset,
            source_url=f"{self.origin.url}{self._path}?token={self._signature}",
            destination=self.destination.url,
            redis_url=self._redis_url,
            life=self._lives,
            part_bytes=self.destination.part_bytes,
            env=self.destination.env,
            parts=parts,
            steps=steps,
        )
        forked: Future[Worker] = Future()
        sink = self.destination.sink
        with (
            sink.serving(moment, kill=lambda: forked.result(_FORK_SECONDS).kill())
            if sink
            else nullcontext(Seen())
        ) as seen:
            worker = self._fork_server.start(job)
            forked.set_result(worker)
            report = None if worker.killed() else worker.report()
        signature, self._lives = self._signature, self._lives + 1
        return Life(report, seen, self._ranges_asked(signature))

    def ledger_keys(self, kind: str) -> list[str]:
        with Redis.from_url(self._redis_url, decode_responses=True) as client:
            return list(client.scan_iter(f"archiver:{kind}:*", count=1000))

    def stored_paths(self) -> set[str]:
        """Return what the ledger knows as whole, of whatever version."""
        with Redis.from_url(self._redis_url, decode_responses=True) as client:
            kept: Mapping[str, str] = {
                name: value
                for key in self.ledger_keys("stored")
                for name, value in client.hgetall(key).items()
            }
        return {name[1:] for name in kept if name.startswith("/")}

    def manifest(self) -> dict[str, Any]:
        parsed = Asset.parse(self._asset)
        manifest: dict[str, Any] = json.loads(
            self.destination.read(manifest_key(parsed.id, parsed.created_at))
        )
        return manifest

    def state(self) -> str | None:
        ledger = RedisLedger(self._redis_url, SEAL)
        try:
            row = ledger.get(ASSET_ID)
            return None if row is None else row.state.value
        finally:
            ledger.close()

    @property
    def _signature(self) -> str:
        return f"life-{self._lives}"

    def _signed_for_this_life(self, request: Request, reply: Reply) -> Reply:
        if request.query.get("token") != [self._signature]:
            return Reply(403, body=b"Request has expired")
        return reply

    def _ranges_asked(self, signature: str) -> list[tuple[str, int, int]]:
        asked = []
        for request in list(self.origin.requests):
            if request.query.get("token") == [signature]:
                size = len(self.origin.files.get(request.path, b""))
                first, last = request.range or (0, size - 1)
                asked.append((request.path, first, min(last + 1, size)))
        return asked


def flush(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.flushall()
