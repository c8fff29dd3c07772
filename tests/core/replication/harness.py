"""Destinations in memory, a ledger, and what replicates between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.records import keys
from archiver.core.records.commit import committed
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.replication.repairer import Repaired, Repairer
from archiver.core.replication.replicator import Replicator
from archiver.hms.models import Asset
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, CopyState, Row
from archiver.transfer.base import Engine, UploadJournal
from archiver.transfer.engine import TransferEngine
from archiver.transfer.memory import MemoryBudget
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import StorageError
from storage_backends.memory import MemoryBackend, MemoryUpload
from tests.core.archived import archive_at, enter, put
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock
from tests.core.harness import NO_PAUSES

WHOLE, LACKING, DAMAGED = CopyState.WHOLE, CopyState.LACKING, CopyState.DAMAGED
FILES = {"movie.mp4": b"0123456789abcdef" * 20, "seg.ts": b"s" * 30, "index.m3u8": b"#EXTM3U\nseg.ts\n"}


class Store(MemoryBackend):
    """A store of its own, which may fail: `on_read`, `on_stat` and `on_write` are called with the key before each."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.on_read: Callable[[str], None] = lambda _key: None
        self.on_stat: Callable[[str], None] = lambda _key: None
        self.on_write: Callable[[str], None] = lambda _key: None
        self.reads: list[str] = []
        self.writes: list[str] = []

    def fail(self, error: StorageError | None) -> None:
        def raise_it(_key: str) -> None:
            if error is not None:
                raise error

        self.on_read = self.on_stat = self.on_write = raise_it

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        self.on_read(key)
        self.reads.append(key)
        return super().read(key, start, length_bytes, if_match=if_match)

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        self.on_stat(key)
        return super().stat(key)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        self.on_write(spec.key)
        self.writes.append(spec.key)
        return super().put(spec, data, crc32c)

    def begin(self, spec: ObjectSpec) -> MemoryUpload:
        self.on_write(spec.key)
        self.writes.append(spec.key)
        return super().begin(spec)

    def damage(self, key: str, data: bytes | None = None) -> None:
        """Change the object's bytes and keep the checksum that is told of it; None: change one bit."""
        whole = self.store.objects[key]
        changed = bytes([whole.data[0] ^ 1]) + whole.data[1:] if data is None else data
        self.store.objects[key] = replace(whole, data=changed)


class ReplicationHarness:
    def __init__(self, *stores: Store) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = list(stores) or [Store("one"), Store("two")]
        self.stopping = False
        self.part_bytes = 64
        self.paused: list[float] = []
        self.repairer = self.repairer_of(self.stores)

    def repairer_of(self, stores: Sequence[StorageBackend]) -> Repairer:
        return Repairer(
            ledger=self.ledger,
            destinations=stores,
            engine=self.engine,
            lease=timedelta(minutes=2),
            lease_renew=timedelta(seconds=30),
            clock=self.clock,
            read_bytes=50,
        )

    def replicator(self, bytes_a_day: int | None = None, concurrency: int = 2) -> Replicator:
        return Replicator(
            ledger=self.ledger,
            destinations=self.stores,
            repairer=self.repairer,
            clock=self.clock,
            concurrency=concurrency,
            bytes_a_day=bytes_a_day,
            pause=self.paused.append,
            stop_requested=lambda: self.stopping,
        )

    def engine(self, journal: UploadJournal, heartbeat: Heartbeat) -> Engine:
        return TransferEngine(
            MemoryBudget(2**20 + 4 * self.part_bytes),
            part_bytes=self.part_bytes,
            connections=2,
            uploads=2,
            journal=journal,
            on_bytes=heartbeat.moved,
            should_stop=heartbeat.check,
            should_yield=heartbeat.should_yield,
            policy=NO_PAUSES,
        )

    def archive(
        self,
        made: Asset | None = None,
        at: Sequence[Store] | None = None,
        *,
        state: AssetState = AssetState.ARCHIVED,
        files: dict[str, bytes] | None = None,
        over: bool = True,
        doubts: tuple[str, ...] = (),
    ) -> Asset:
        """An asset that `at` (default: the first) holds whole and the others lack, after its source has ended."""
        made = made or asset()
        holders = self.stores[:1] if at is None else at
        enter(self.ledger, made, state)
        archive_at(holders, made, files or FILES, doubts)
        for store in self.stores:
            if isinstance(store, Store):
                store.writes.clear()
        row = self.row(made)
        self.ledger.note_copies(row, {s.name: WHOLE if s in holders else LACKING for s in self.stores})
        if over:
            self.clock.now = NOW + 2 * RETENTION
        return made

    def repair(self, made: Asset, **options: object) -> Repaired:
        return self.repairer.repair(made.id, "test@here", **options)  # type: ignore[arg-type]

    def row(self, made: Asset) -> Row:
        row = self.ledger.get(made.id)
        assert row is not None
        return row

    def copies(self, made: Asset) -> list[CopyState | None]:
        return [self.row(made).copies.get(store.name) for store in self.stores]

    def manifest(self, store: Store, made: Asset) -> Manifest | None:
        return read_manifest(store, keys.manifest_key(made.id, made.created_at))

    def is_whole(self, store: Store, made: Asset, files: dict[str, bytes] | None = None) -> bool:
        """By the bytes that are there."""
        manifest = committed(store, keys.manifest_key(made.id, made.created_at))
        if manifest is None:
            return False
        stored = {item.path: store.store.objects[manifest.key_of(item)].data for item in manifest.objects}
        return stored == (files or FILES)


__all__ = ["DAMAGED", "FILES", "LACKING", "WHOLE", "ReplicationHarness", "Store", "put"]
