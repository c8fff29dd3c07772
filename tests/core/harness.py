"""An archiver to test with: real engine, ledger and stores in memory, and assets made of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from archiver.core.attempt.archiver import Archiver
from archiver.core.attempt.context import Rules
from archiver.core.attempt.decisions import RetryRules
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.contents.base import Item, Notes, Phase
from archiver.core.judging import Scope
from archiver.hms.models import Asset
from archiver.ledger.base import Ledger
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.retry_policy import REQUEST
from archiver.transfer.base import Engine, Reader, SourceInfo, UploadJournal
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import Stopped
from archiver.transfer.memory import MemoryBudget
from storage_backends.base import StorageBackend
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock, FakeApi

TEMPLATE = "recordings/{room_id}/{session_id}/{type}/{asset_id}"
PART_BYTES = 64
NO_PAUSES = replace(REQUEST, base=timedelta())


class BytesSource:
    """A source in memory. `errors` are raised, one a time, by `open`; `reads` counts."""

    def __init__(self, data: bytes, errors: Sequence[Exception] = (), etag: str = '"v1"') -> None:
        self._data = data
        self._etag = etag
        self._errors = list(errors)
        self.reads = 0

    @property
    def name(self) -> str:
        return "memory://source"

    def open(self, first_bytes: int) -> tuple[SourceInfo, Reader]:
        self.reads += 1
        if self._errors:
            raise self._errors.pop(0)
        info = SourceInfo(size_bytes=len(self._data), ranges=True, etag=self._etag)
        return info, _Reader(self._data[:first_bytes])

    def read_range(self, start: int, into: memoryview, info: SourceInfo) -> None:
        self.reads += 1
        into[:] = self._data[start : start + len(into)]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        return


@dataclass
class Tree:
    """Contents made of files: media first, then what ends in .m3u8."""

    files: Mapping[str, BytesSource | bytes]
    version: str = "v1"
    form: str = "hls"
    notes: Notes = field(default_factory=Notes)
    optional: frozenset[str] = frozenset()
    version_is_exact: bool = False

    def items(self) -> Iterator[Item]:
        for path, body in sorted(self.files.items(), key=lambda entry: entry[0].endswith(".m3u8")):
            source = body if isinstance(body, BytesSource) else None
            yield Item(
                path,
                "video/mp4",
                phase=Phase.PLAYLIST if path.endswith(".m3u8") else Phase.MEDIA,
                source=source,
                data=body if isinstance(body, bytes) else None,
                optional=path in self.optional,
            )


def file(data: bytes) -> Tree:
    return Tree({"Rec-room-1.mp4": BytesSource(data)}, form="file")


class ArchiverHarness:
    """One asset and an archiver. `contents` is called for each attempt, as the real one is."""

    def __init__(
        self,
        contents: Callable[[], Tree],
        *,
        stores: Sequence[StorageBackend] = (),
        assets: Sequence[Asset] = (),
        time_is_up: type[Exception] = Stopped,
        lease_renew: timedelta = timedelta(seconds=30),
        new_ledger: Callable[[Clock], MemoryLedger] = MemoryLedger,
        behind: Callable[[Sequence[StorageBackend], Ledger, Clock], list[StorageBackend]] | None = None,
    ) -> None:
        """`behind` puts something between the archiver and `stores`."""
        self.clock = Clock(NOW)
        self.ledger = new_ledger(self.clock)
        self.stores = list(stores) or [MemoryBackend("one")]
        self.api = FakeApi(assets or [asset(size=None)], clock=self.clock)
        self.stopping = False
        self.paused: list[float] = []  # seconds, while the ledger was unreachable
        self.archiver = Archiver(
            api=self.api,
            ledger=self.ledger,
            destinations=behind(self.stores, self.ledger, self.clock) if behind else self.stores,
            open_contents=lambda _asset: contents(),
            engine=self._engine,
            rules=Rules(
                scope=Scope(RETENTION),
                retry=RetryRules(),
                key_template=TEMPLATE,
                lease=timedelta(minutes=2),
                lease_renew=lease_renew,
                archiver_version="test",
            ),
            clock=self.clock,
            stop_requested=lambda: self.stopping,
            time_is_up=time_is_up,
            pause=self.paused.append,
        )

    def another_archiver(self, **changed: Any) -> Archiver:
        """One with the same dependencies, but for those in `changed`."""
        other = copy(self.archiver)
        other.deps = replace(self.archiver.deps, **changed)
        return other

    @property
    def asset_id(self) -> str:
        return self.api.assets[0].id

    def _engine(self, journal: UploadJournal, heartbeat: Heartbeat) -> Engine:
        return TransferEngine(
            MemoryBudget(16 * 2**20),
            part_bytes=PART_BYTES,
            connections=2,
            uploads=2,
            journal=journal,
            on_bytes=heartbeat.moved,
            should_stop=heartbeat.check,
            should_yield=heartbeat.should_yield,
            policy=NO_PAUSES,
        )

    def archive(self, asset_id: str | None = None) -> object:
        return self.archiver.archive(asset_id or self.asset_id, "test")

    def archive_until_settled(self, attempts: int = 60, asset_id: str | None = None) -> object:
        """Again and again, each time when the ledger says."""
        outcome: object = None
        for _ in range(attempts):
            outcome = self.archive(asset_id)
            due = self.ledger.next_due_at()
            if due is None:
                return outcome
            self.clock.now = max(due, self.clock.now) + timedelta(minutes=6)  # past any hold
        return outcome
