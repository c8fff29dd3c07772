"""One worker's attempt at one asset, in a process of its own that may be killed: the product's archiver, contents,
engine, ledger and store, put together for a `Job`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from types import ModuleType
from typing import Any, cast

import structlog
from pydantic import SecretStr

from archiver.core.attempt.archiver import Archiver
from archiver.core.attempt.context import Rules
from archiver.core.attempt.decisions import RetryRules
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.contents.opening import ContentsOpener
from archiver.core.judging import Scope
from archiver.hms.models import Asset, Page, SignedUrl
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.base import UploadJournal
from archiver.transfer.engine import TransferEngine
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from storage_backends import filesystem
from storage_backends.base import Buffer, ObjectSpec, Part, StorageBackend, Upload
from storage_backends.registry import open_destination

SEAL = Seal(SecretStr("the app secret of every worker"))
LEASE = timedelta(minutes=10)
CONNECTIONS = 3  # to the source, and to the store
TEMPLATE = "recordings/{asset_id}"


@dataclass(frozen=True)
class Job:
    """`life`: how many workers came before; their leases are over by this one's clock. `steps`: of its changes to a
    directory, after which the worker is killed; `parts`: of its parts, just stored and not yet noted."""

    asset: Mapping[str, Any]
    source_url: str
    destination: str
    redis_url: str
    life: int = 0
    part_bytes: int = 64 * 1024
    env: Mapping[str, str] = field(default_factory=dict)
    steps: int | None = None
    parts: int | None = None


@dataclass
class Report:
    """What a worker lived to tell. `events`: what it logged."""

    outcome: str = ""
    reason: str = ""
    warnings: Sequence[str] = ()
    events: list[Mapping[str, Any]] = field(default_factory=list)
    parts_sent: int = 0
    part_bytes_sent: int = 0


class OneAsset:
    """hms.base.RecordingAssets of one asset, whose URL was signed for this worker."""

    def __init__(self, asset: Asset, url: str) -> None:
        self._asset = asset
        self._url = url

    def pages(
        self,
        *,
        room_id: str | None = None,
        session_id: str | None = None,
        status: str | None = None,
        start: str | None = None,
    ) -> Iterator[Page]:
        yield Page(assets=(self._asset,), next_start=None)

    def asset(self, asset_id: str) -> Asset:
        return self._asset

    def sign(self, asset_id: str, duration: timedelta = timedelta(hours=1)) -> SignedUrl:
        return SignedUrl(id=asset_id, url=SecretStr(self._url), expiry=3600)


class Watched:
    """A store that takes parts smaller than S3's 5 MiB, which the servers behind it do too; and counts them."""

    def __init__(self, inner: StorageBackend, job: Job, report: Report) -> None:
        self._inner = inner
        self.job = job
        self._report = report
        self._lock = Lock()
        limits = inner.limits
        self.limits = replace(limits, min_part_bytes=min(limits.min_part_bytes, job.part_bytes))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def begin(self, spec: ObjectSpec) -> Upload:
        return cast(Upload, WatchedUpload(self._inner.begin(spec), self))

    def resume(self, spec: ObjectSpec, token: str) -> Upload:
        return cast(Upload, WatchedUpload(self._inner.resume(spec, token), self))

    def stored(self, part: Part) -> None:
        with self._lock:
            self._report.parts_sent += 1
            self._report.part_bytes_sent += part.size_bytes
            if self._report.parts_sent == self.job.parts:
                end_it()


class WatchedUpload:
    def __init__(self, inner: Upload, store: Watched) -> None:
        self._inner = inner
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        part = self._inner.put_part(number, data, crc32c)
        self._store.stored(part)
        return part


class MortalOs:
    """`os` as the directory backend sees it, until its last change took effect."""

    CHANGES = frozenset(
        {"fdatasync", "fsync", "ftruncate", "link", "mkdir", "posix_fallocate", "pwrite", "rename"}
        | {"rmdir", "unlink", "write"}
    )

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._lock = Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in self.CHANGES:
            return found

        def change(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            with self._lock:
                self._left -= 1
                if not self._left:
                    end_it()
            return result

        return change


def filesystem_modules() -> list[ModuleType]:
    """The modules of the directory backend that call `os`."""
    names = [name for _, name, _ in pkgutil.iter_modules(filesystem.__path__, f"{filesystem.__name__}.")]
    return [module for module in map(importlib.import_module, names) if "os" in vars(module)]


def end_it() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work(job: Job) -> Report:
    report = Report()
    structlog.configure(processors=[lambda _, __, event: _kept(report, event)])
    os.environ.update(job.env)
    if job.steps is not None:
        mortal = MortalOs(job.steps)
        for module in filesystem_modules():
            vars(module)["os"] = mortal
    asset = Asset.parse(job.asset)
    http = HttpClient(AddressPolicy(allow_private=True))
    memory = MemoryBudget(64 * 2**20)

    def now() -> datetime:
        return datetime.now(UTC) + job.life * 2 * LEASE

    api = OneAsset(asset, job.source_url)
    with (
        closing(http),
        closing(RedisLedger(job.redis_url, SEAL, clock=now)) as ledger,
        closing(open_destination(job.destination)) as backend,
    ):
        store = Watched(backend, job, report)

        def engine(journal: UploadJournal, heartbeat: Heartbeat) -> TransferEngine:
            return TransferEngine(
                memory,
                part_bytes=job.part_bytes,
                connections=CONNECTIONS,
                uploads=CONNECTIONS,
                journal=journal,
                on_bytes=heartbeat.moved,
                should_stop=heartbeat.check,
            )

        archiver = Archiver(
            api=api,
            ledger=ledger,
            destinations=[cast(StorageBackend, store)],
            open_contents=ContentsOpener(api, http),
            engine=engine,
            rules=Rules(
                scope=Scope(timedelta(days=15)),
                retry=RetryRules(),
                key_template=TEMPLATE,
                lease=LEASE,
                lease_renew=timedelta(minutes=1),
                archiver_version="test",
            ),
            clock=now,
        )
        outcome = archiver.archive(asset.id, f"worker-{job.life}")
    report.outcome = type(outcome).__name__
    report.reason = getattr(outcome, "reason", "")
    report.warnings = getattr(outcome, "warnings", ())
    return report


def _kept(report: Report, event: Any) -> Any:
    report.events.append({name: str(value) for name, value in event.items()})
    raise structlog.DropEvent
