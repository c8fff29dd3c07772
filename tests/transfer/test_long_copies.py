"""A recording of twelve hours, copied by workers that are killed again and again, under URLs that expire.

The bytes are made as they are asked for, and the engine runs on `SingleThreaded`. The number of parts is that of
50 GiB, and the size a sixteenth of it, for CRC32C is computed of every byte; `copy_killed(50 * 1024 * MIB, 6 * MIB)` is
the whole.
"""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from archiver.http.session import Session
from archiver.http.transfer import Request
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.addresses import RenewableUrl
from archiver.transfer.base import CopyResult
from archiver.transfer.engine import TransferEngine
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectSpec, Part, Upload
from storage_backends.memory import MemoryBackend
from tests.transfer.builders import Journal, request
from tests.transfer.single_threaded import InMemorySession, SingleThreaded

MIB = 2**20
CONNECTIONS = 16
BUDGET_PARTS = 24


class Killed(BaseException):
    """The worker is gone."""


class Source:
    """A file that nobody could keep: any of its bytes, made when they are asked for."""

    def __init__(self, size_bytes: int, expiries: int) -> None:
        self.size_bytes = size_bytes
        self.sent_bytes = 0
        self.signed = 0
        self._expires_every = size_bytes // (expiries + 1)
        self._pattern = random.Random(5).randbytes(16 * MIB)

    def sign(self) -> SecretUrl:
        self.signed += 1
        return SecretUrl(
            f"https://source.example/12h.mp4?generation={self.sent_bytes // self._expires_every}"
        )

    def serve(self, asked: Request) -> tuple[list[bytes], bytes]:
        if f"generation={self.sent_bytes // self._expires_every}" not in asked.url:
            return [b"HTTP/1.1 403 Forbidden\r\n", b"Content-Length: 0\r\n", b"\r\n"], b""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers["Range"])
        assert found is not None
        start, end = int(found[1]), min(int(found[2]), self.size_bytes - 1)
        body = self._pattern[: end + 1 - start]
        self.sent_bytes += len(body)
        head = [
            b"HTTP/1.1 206 Partial Content\r\n",
            b'ETag: "one"\r\n',
            f"Content-Range: bytes {start}-{end}/{self.size_bytes}\r\n".encode(),
            f"Content-Length: {len(body)}\r\n".encode(),
            b"\r\n",
        ]
        return head, body


class Client(HttpClient):
    def __init__(self, runtime: SingleThreaded, source: Source) -> None:
        super().__init__(AddressPolicy())
        self._made = InMemorySession(runtime, source.serve)

    def session(self) -> Session:
        return self._made  # type: ignore[return-value] # as much of it as the engine asks for


class Store(MemoryBackend):
    """Keeps of what it is sent the number of each part, and its checksum."""

    def __init__(self) -> None:
        super().__init__("store")
        self.held: dict[int, Part] = {}
        self.received_bytes = 0
        self.uploads = 0

    @property
    def limits(self) -> Limits:
        return replace(super().limits, max_parts=10_000)

    def begin(self, spec: ObjectSpec) -> Upload:  # type: ignore[override]
        self.uploads += 1
        return _Upload(self, spec)

    def resume(self, spec: ObjectSpec, token: str) -> Upload:  # type: ignore[override]
        return _Upload(self, spec)


@dataclass
class _Upload:
    store: Store
    spec: ObjectSpec
    token: str = "token"

    def parts(self) -> Mapping[int, Part]:
        return dict(self.store.held)

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        self.store.received_bytes += len(data)
        self.store.held[number] = Part(number, len(data), crc32c, f"tag {number}")
        return self.store.held[number]

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        return ObjectInfo(self.spec.key, sum(part.size_bytes for part in parts), crc32c)

    def abort(self) -> None:
        raise AssertionError("an upload that can be resumed is never aborted")


@dataclass
class Outcome:
    result: CopyResult
    read_again_bytes: int
    sent_again_bytes: int
    signed: int
    part_bytes: int
    peak_bytes: int
    uploads: int


def copy_killed(
    size_bytes: int, part_bytes: int, *, kills: int = 10, expiries: int = 8, seed: int = 1
) -> Outcome:
    """One copy, by as many workers as it takes."""
    source, store, journal = Source(size_bytes, expiries), Store(), Journal()
    memory = MemoryBudget(BUDGET_PARTS * part_bytes)
    rng = random.Random(seed)
    deaths = sorted(rng.sample(range(size_bytes // 20, size_bytes), kills))
    result: CopyResult | None = None
    while result is None:
        dies_at = deaths.pop(0) if deaths else size_bytes * 2
        runtime = SingleThreaded(seed=rng.randrange(2**32))

        def alive(_key: object, _count: int, dies_at: int = dies_at) -> None:
            if source.sent_bytes >= dies_at:
                raise Killed

        engine = TransferEngine(
            memory,
            part_bytes=part_bytes,
            connections=CONNECTIONS,
            uploads=CONNECTIONS,
            journal=journal,
            on_bytes=alive,
            runtime=runtime,
        )
        http = HttpSource(Client(runtime, source), RenewableUrl(source.sign))
        try:
            with engine:
                result = engine.submit(http, request(), [store]).result()
        except Killed:
            memory = MemoryBudget(memory.limit_bytes)  # it died with its process
    return Outcome(
        result,
        source.sent_bytes - size_bytes,
        store.received_bytes - size_bytes,
        source.signed,
        part_bytes,
        memory.peak_bytes,
        store.uploads,
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_ten_deaths_and_eight_expiries_cost_what_was_in_flight_and_no_more(seed: int) -> None:
    tracemalloc.start()
    try:
        outcome = copy_killed(50 * 1024 * MIB // 16, 6 * MIB // 16, seed=seed)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    in_flight_bytes = BUDGET_PARTS * outcome.part_bytes
    assert outcome.result.failed == {}
    assert outcome.result.size_bytes == 50 * 1024 * MIB // 16
    assert outcome.uploads == 1
    # each death loses what was in memory, and each worker reads the start once more to see what it is
    assert outcome.read_again_bytes <= 10 * (in_flight_bytes + outcome.part_bytes)
    assert outcome.sent_again_bytes <= 10 * in_flight_bytes
    assert 9 <= outcome.signed <= 9 + 11 + CONNECTIONS
    assert outcome.peak_bytes <= in_flight_bytes
    assert peak_bytes < 2 * in_flight_bytes + 48 * MIB  # with the pattern, and what 8,500 parts are known by
