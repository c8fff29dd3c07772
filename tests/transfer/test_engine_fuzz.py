"""Disorder by seed: sources and stores that fail, tiny memory, several engines at once, lost answers, cancellations.

Each seed ends with a calm engine that must bring every object home. A failure names its seed.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta
from time import monotonic
from typing import TypeVar

import pytest

from archiver.http.options import Timeouts
from archiver.retry_policy import REQUEST
from archiver.transfer.addresses import FixedAddress
from archiver.transfer.allowance import Allowance
from archiver.transfer.base import CopyRequest, CopyResult, Reader, Source, SourceInfo
from archiver.transfer.checksums import crc32c
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import SourceError, SourceForbidden, SourceMismatch, SourceUnavailable, Stopped
from archiver.transfer.http import Address, HttpClient
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl
from storage_backends.base import Limits, ObjectInfo, ObjectKey, Part, StorageBackend, Upload, object_key
from storage_backends.errors import (
    AccessDenied,
    ChecksumRejected,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.memory import MemoryBackend
from tests.transfer import origin as faults
from tests.transfer.builders import Journal, client
from tests.transfer.origin import Origin, Reply, Request
from tests.transfer.stores import Wrapped, WrappedUpload, stored_in

T = TypeVar("T")

TEST_SECONDS = 14.0
HANG_SECONDS = 60.0
QUIET_SECONDS = 20.0  # for calls that were under way to end and release what they hold
KIB = 1024
HURRIED = replace(REQUEST, attempts=3, base=timedelta(milliseconds=1))
PATIENT = replace(REQUEST, attempts=30, base=timedelta(milliseconds=1), cap=timedelta(milliseconds=5))
SIZES = (0, 1, 63, 64, 500, 4096, 4097, 5000, 70_000)


class Defect(Exception):
    """A fault that nobody foresaw."""


@dataclass
class Weather:
    chance: float  # of a fault


class Dice:
    """Numbers for several threads."""

    def __init__(self, seed: str, weather: Weather) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._weather = weather

    def throw(self) -> float:
        """Below 1, evenly, when a fault is due."""
        chance = self._weather.chance
        with self._lock:
            return self._random.random() / chance if chance else 1.0

    def one_of(self, choices: Sequence[T]) -> T:
        with self._lock:
            return self._random.choice(choices)

    def below(self, limit: int) -> int:
        with self._lock:
            return self._random.randrange(limit) if limit else 0


# -- sources -------------------------------------------------------------------------------------------------
class UnsteadySource:
    name = "https://source.example/unsteady"

    def __init__(self, content: bytes, dice: Dice, info: SourceInfo) -> None:
        self._content = content
        self._dice = dice
        self._info = info

    def stumble(self) -> None:
        thrown = self._dice.throw()
        if thrown < 0.8:
            raise SourceUnavailable("503", None, throttled=thrown < 0.3)
        if thrown < 0.9:
            raise SourceMismatch("odd")
        if thrown < 0.95:
            raise SourceForbidden("403")
        if thrown < 0.98:
            raise Defect("source")

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        self.stumble()
        content = self._content[:first_bytes] if self._info.ranges else self._content
        return self._info, _UnsteadyReader(content, self.stumble)

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        self.stumble()
        into[:] = self._content[start : start + len(into)]


class _UnsteadyReader:
    def __init__(self, content: bytes, stumble: Callable[[], None]) -> None:
        self._rest = content
        self._stumble = stumble

    def readinto(self, buffer: memoryview, /) -> int:
        if len(self._rest) % 11 == 0:
            self._stumble()
        piece, self._rest = self._rest[: min(len(buffer), 700)], self._rest[min(len(buffer), 700) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        return


def unsteady_origin(dice: Dice, framing: faults.Fault) -> faults.Fault:
    """Answers of a server on a bad day; without a fault, framed by `framing`."""

    def fault(request: Request, reply: Reply) -> Reply:
        if dice.throw() >= 1:
            return framing(request, reply)
        at = dice.below(len(reply.body))
        choices = [
            faults.cut_at(at),
            faults.reset_at(at),
            faults.status(503),
            faults.status(429, Retry_After="0"),
            faults.status(403),
            faults.silent_close,
            faults.raw(b""),
            faults.raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
        ]
        if reply.status == 206:
            choices += [faults.short, faults.too_long]
        if (
            request.range and request.range[0]
        ):  # of a first answer nobody could tell that it is another file's
            choices += [faults.html, faults.other_etag, faults.other_total]
        return dice.one_of(choices)(request, reply)

    return fault


# -- stores --------------------------------------------------------------------------------------------------
class UnsteadyStore(Wrapped):
    def __init__(self, name: str, dice: Dice) -> None:
        super().__init__(MemoryBackend(name))
        self._dice = dice

    def act(self, method: str, action: Callable[[], T]) -> T:
        thrown = self._dice.throw()
        if thrown < 0.5:
            raise TransientStorageError(method)
        if thrown < 0.55:
            raise ChecksumRejected(method)
        if thrown < 0.6 and method != "abort":
            raise UploadGone(method)
        if thrown < 0.63:
            raise AccessDenied(method)
        if thrown < 0.65:
            raise Defect(method)
        answer = super().act(method, action)
        if thrown < 1:
            raise TransientStorageError(f"the answer to {method} was lost")
        return answer


class InOrder(UnsteadyStore):
    @property
    def limits(self) -> Limits:
        return replace(self.inner.limits, parallel_parts=False, part_multiple_bytes=4)

    def upload(self, inner: Upload) -> Upload:
        return _InOrderUpload(self, inner)


class _InOrderUpload(WrappedUpload):
    def parts(self) -> None:
        return None


class WithoutChecksums(UnsteadyStore):
    def act(self, method: str, action: Callable[[], T]) -> T:
        answer = super().act(method, action)
        return replace(answer, crc32c=None) if isinstance(answer, ObjectInfo) else answer


class SharedJournal(Journal):
    """A journal that never raises, and tolerates parts of uploads that were forgotten meanwhile."""

    def part_done(self, store: str, key: ObjectKey, part: Part) -> None:
        if (store, key) in self.saved:
            super().part_done(store, key, part)


# -- one seed ------------------------------------------------------------------------------------------------
@dataclass
class Tally:
    stored: int = 0
    failed: int = 0
    stopped: int = 0


class Disorder:
    """What one seed makes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.tally = Tally()
        self._random = random.Random(seed)
        limit_bytes = self._random.choice([64, 128, 192, 1024]) * KIB
        allowance = self._allowance(limit_bytes) if self._random.random() < 0.5 else None
        self._memory = MemoryBudget(limit_bytes, reused_bytes=1, allowance=allowance)
        self._part_bytes = self._random.choice([64, 256, 1000, 4096, 60_000])
        self._chance = self._random.choice([0, 0.02, 0.1, 0.3])
        self._engines: list[TransferEngine] = []

    def _allowance(self, limit_bytes: int) -> Allowance:
        """Of a process that takes more and less, as it likes."""
        sizes = random.Random(f"{self.seed}/process")
        return Allowance(
            2 * limit_bytes,
            most_bytes=limit_bytes,
            least_bytes=limit_bytes // 4,
            resident_bytes=lambda: sizes.randrange(3 * limit_bytes),
            give_back=lambda: None,
        )

    def run(self) -> Tally:
        """Raises AssertionError."""
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                self._work(number, random.Random(f"{self.seed}/{number}"))
            except BaseException as error:
                errors.append(error)

        workers = range(self._random.choice([1, 2, 3]))
        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in workers]
        for thread in threads:
            thread.start()
        deadline = monotonic() + HANG_SECONDS
        for thread in threads:
            while thread.is_alive() and monotonic() < deadline and not errors:
                thread.join(0.05)
        if errors:
            raise errors[0]
        assert not any(thread.is_alive() for thread in threads), f"it hangs: {self._left()}"
        self._nothing_is_left()
        return self.tally

    def _work(self, number: int, plan: random.Random) -> None:
        largest = len(SIZES) if self._part_bytes >= 1000 else len(SIZES) - 1
        contents = {
            object_key(f"{number}/{n}"): plan.randbytes(plan.choice(SIZES[:largest]))
            for n in range(plan.choice([1, 5, 25]))
        }
        weather = Weather(self._chance)

        def dice(owner: str) -> Dice:
            return Dice(f"{self.seed}/{number}/{owner}", weather)

        stores: list[StorageBackend] = [
            kind(kind.__name__, dice(kind.__name__))
            for kind in (UnsteadyStore, InOrder, WithoutChecksums)
            if plan.random() < 0.7
        ] or [MemoryBackend("steady")]
        journal = SharedJournal() if plan.random() < 0.7 else None
        http = client(Timeouts(silence=timedelta(seconds=1)))
        framing = plan.choice(
            [faults.none, faults.none, faults.chunked, faults.for_ranges(faults.without_etag)]
        )
        files = {f"/{key}": content for key, content in contents.items()}
        answers = unsteady_origin(dice("origin"), framing)
        with Origin(files, etag=plan.choice(['"v1"', None]), always=answers) as origin:
            make = _Sources(plan, http, origin, dice)
            for _ in range(plan.choice([1, 2, 3])):
                self._copy(plan, contents, stores, journal, make)
            weather.chance = 0
            self._copy_in_peace(contents, stores, journal, make)
        http.close()

    def _engine(self, **options: object) -> TransferEngine:
        engine = TransferEngine(self._memory, part_bytes=self._part_bytes, **options)  # type: ignore[arg-type]
        self._engines.append(engine)
        return engine

    def _copy(
        self,
        plan: random.Random,
        contents: dict[ObjectKey, bytes],
        stores: Sequence[StorageBackend],
        journal: Journal | None,
        make: _Sources,
    ) -> None:
        stops_at = monotonic() + plan.choice([0.01, 0.05, 0.2, 1e9, 1e9, 1e9])
        leaves_after = plan.choice([0, 1, len(contents), len(contents)])

        def check() -> None:
            if monotonic() > stops_at:
                raise Stopped("told to")

        futures: dict[ObjectKey, Future[CopyResult]] = {}
        try:
            with self._engine(
                connections=plan.choice([1, 2, 8]),
                uploads=plan.choice([1, 2, 8]),
                journal=journal,
                should_stop=check,
                policy=HURRIED,
            ) as engine:
                for key, content in contents.items():
                    futures[key] = self._submit(plan, engine, key, content, stores, make)
                for future in list(futures.values())[:leaves_after]:
                    future.exception(timeout=HANG_SECONDS)
                engine.confirm()
        except (Stopped, Defect, StorageError):
            self.tally.stopped += 1
        for key, future in futures.items():
            assert future.done(), f"{key} is undone after the engine was left"
            self._judge(key, contents[key], future, stores)

    def _submit(
        self,
        plan: random.Random,
        engine: TransferEngine,
        key: ObjectKey,
        content: bytes,
        stores: Sequence[StorageBackend],
        make: _Sources,
    ) -> Future[CopyResult]:
        ask = CopyRequest(key, "video/mp4", size_bytes=len(content) if plan.random() < 0.5 else None)
        if plan.random() < 0.2:
            return engine.submit_chunks(_chunks(content), ask, stores)
        return engine.submit(make(key, content), ask, stores)

    def _judge(
        self,
        key: ObjectKey,
        content: bytes,
        future: Future[CopyResult],
        stores: Sequence[StorageBackend],
    ) -> None:
        error = future.exception()
        if error is not None:
            assert isinstance(error, SourceError | Stopped | StorageError | Defect), repr(error)
            self.tally.failed += 1
            return
        result = future.result()
        for store in stores:
            if store.name in result.stored:
                assert stored_in(store)[key] == content, f"{key} has other bytes in {store.name}"
                assert (result.size_bytes, result.crc32c) == (len(content), crc32c(content))
                self.tally.stored += 1
            else:
                assert store.name in result.failed, (
                    f"{key} is neither stored in {store.name} nor failed there"
                )

    def _copy_in_peace(
        self,
        contents: dict[ObjectKey, bytes],
        stores: Sequence[StorageBackend],
        journal: Journal | None,
        make: _Sources,
    ) -> None:
        """Whatever was left behind, a copy without faults comes home."""
        with self._engine(connections=4, uploads=4, journal=journal, policy=PATIENT) as engine:
            futures = {
                key: engine.submit(make(key, content), CopyRequest(key, "video/mp4"), stores)
                for key, content in contents.items()
            }
            for key, future in futures.items():
                future.exception(timeout=HANG_SECONDS)
                assert future.exception() is None, f"{key}: {future.exception()!r}"
                assert future.result().failed == {}, f"{key}: {future.result().failed}"
            assert engine.confirm() == {}
        for key, content in contents.items():
            assert all(stored_in(store)[key] == content for store in stores)

    def _nothing_is_left(self) -> None:
        deadline = monotonic() + QUIET_SECONDS
        while (left := self._left()) and monotonic() < deadline:
            threading.Event().wait(0.005)
        assert not left, f"left behind: {left}"

    def _left(self) -> list[str]:
        left = []
        if self._memory.in_use_bytes or self._memory.waiting:
            left.append(f"{self._memory.in_use_bytes} bytes in use, {self._memory.waiting} waiting")
        for number, engine in enumerate(self._engines):
            tools = engine._tools
            stores = tools.stores._slots.items()
            for name, slots in (("connections", tools.connections), *stores):
                if slots.in_use:
                    left.append(f"{slots.in_use} slots of {name} of engine {number}")
        return left


class _Sources:
    """Makes a source of an object: one that blocks, or one over HTTP."""

    def __init__(
        self, plan: random.Random, http: HttpClient, origin: Origin, new_dice: Callable[[str], Dice]
    ) -> None:
        self._plan = plan
        self._http = http
        self._origin = origin
        self._new_dice = new_dice

    def __call__(self, key: ObjectKey, content: bytes) -> Source:
        plan = self._plan
        if plan.random() < 0.6:
            url = SecretUrl(f"{self._origin.url}/{key}")
            return HttpSource(self._http, FixedAddress(Address(url, {}, frozenset({url.origin}))))
        known, etag = plan.random() < 0.8, plan.choice(['"v1"', None, 'W/"v1"'])
        info = SourceInfo(len(content) if known else None, ranges=known and plan.random() < 0.8, etag=etag)
        return UnsteadySource(content, self._new_dice(f"source/{key}"), info)


def _chunks(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), 300):
        yield content[at : at + 300]


def test_whatever_goes_wrong_nothing_hangs_leaks_or_is_another_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("archiver.transfer.intake.PATIENCE_SECONDS", 0.005)  # or memory would never come late
    began, tally, seeds = monotonic(), Tally(), 0
    first = random.SystemRandom().randrange(10**9)
    while monotonic() - began < TEST_SECONDS:
        seed = first + seeds
        seeds += 1
        try:
            made = Disorder(seed).run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        tally.stored += made.stored
        tally.failed += made.failed
        tally.stopped += made.stopped
    print(f"seeds {first} to {first + seeds - 1}: {tally}")  # noqa: T201 - pytest shows it when it fails

    assert tally.stored > 0
