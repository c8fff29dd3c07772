"""One single-request upload to one store, and verifying that the store has it. Multipart: `parts_upload`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from archiver.http.runtime import Runs
from archiver.http.waiting import blocking
from archiver.ledger.errors import LeaseLost, LedgerError
from archiver.retry_policy import RetryPolicy
from archiver.transfer.base import SavedUpload, UploadJournal
from archiver.transfer.checksums import Crc32c
from archiver.transfer.errors import Preempted
from archiver.transfer.memory import Reservation
from archiver.transfer.tasks import Slots
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import (
    ChecksumRejected,
    StorageError,
    TransientStorageError,
)

T = TypeVar("T")

_READ_BACK_BYTES = 1024 * 1024


class FilledPart:
    """A part's bytes, shared by those who send them; the last `release` gives their memory back. In the engine's
    thread."""

    __slots__ = ("_holders", "_reservation", "crc32c", "data", "number", "size_bytes")

    def __init__(
        self, number: int, data: bytes, size_bytes: int, crc: int, reservation: Reservation | None
    ) -> None:
        self.number = number
        self.data = data
        self.size_bytes = size_bytes
        self.crc32c = crc
        self._reservation = reservation
        self._holders = 1

    def hold(self) -> FilledPart:
        self._holders += 1
        return self

    def release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self.data = b""
            if self._reservation is not None:
                self._reservation.release()


@dataclass(frozen=True, slots=True)
class StoreTools:
    """What all copies of an engine share on the stores' side."""

    runs: Runs
    calls: int  # to each store at once
    policy: RetryPolicy
    journal: UploadJournal | None
    should_yield: Callable[[], bool]
    _slots: dict[str, Slots] = field(default_factory=dict)  # by store

    def slots(self, store: StorageBackend) -> Slots:
        """Return what limits the calls to `store`."""
        slots = self._slots.get(store.name)
        if slots is None:
            slots = self._slots[store.name] = Slots(self.calls)
        return slots

    async def note(self, write: Callable[[UploadJournal], T]) -> T | None:
        """Best effort: without its journal an upload is only not resumable. A lost lease is another matter."""
        journal = self.journal
        if journal is None:
            return None
        try:
            return await blocking(lambda: write(journal), "ledger")
        except LeaseLost:
            raise
        except LedgerError:
            return None

    async def load(self, store: str, key: ObjectKey) -> SavedUpload | None:
        return await self.note(lambda journal: journal.load(store, key))

    def ask(self, call: Callable[[], T]) -> Awaitable[T]:
        """What `call` returns, made where it may block; passing faults are retried."""
        return self.policy.run(lambda: blocking(call), lambda error: isinstance(error, TransientStorageError))

    def send(self, action: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """What `action` returns; passing faults, and damage on the way, are retried."""
        return self.policy.run(
            action, lambda error: isinstance(error, TransientStorageError | ChecksumRejected)
        )

    async def put(self, store: StorageBackend, spec: ObjectSpec, part: FilledPart) -> ObjectInfo:
        """Store an object in one request, and verify it. Raises StorageError."""
        send: Callable[..., Awaitable[ObjectInfo]] | None = getattr(store, "send", None)  # see `Sends`

        def once() -> Awaitable[ObjectInfo]:
            if send is not None:
                return send(spec, part.data, part.crc32c)
            return blocking(lambda: store.put(spec, part.data, part.crc32c))

        slots = self.slots(store)
        if not slots.try_take():
            await slots.take()
        try:
            info = await self.send(once)
            if (info.size_bytes, info.crc32c) != (part.size_bytes, part.crc32c):
                await self.verify(store, spec.key, info, part.size_bytes, part.crc32c)
        finally:
            slots.release()
        return info

    async def verify(
        self,
        store: StorageBackend,
        key: ObjectKey,
        info: ObjectInfo,
        size_bytes: int,
        crc: int,
        *,
        may_yield: bool = False,
    ) -> None:
        """Check the object that was just stored at `key`, by the store's checksum, else by reading it back. Raises
        ChecksumRejected when it is another; it is deleted then, unless the store says that it is not the one that
        `info` describes: another worker may have replaced it since. `may_yield`: see `crc_of`."""
        held = await self.crc_of(store, info, key, may_yield=may_yield)
        if held == crc and info.size_bytes == size_bytes:
            return
        deleted = await blocking(lambda: _delete_own(store, key, info))
        raise ChecksumRejected(
            f"{store.name} stored {key!r} as {info.size_bytes} bytes with CRC32C {held:08x}, "
            f"not as {size_bytes} bytes with {crc:08x}{'; it was deleted again' if deleted else ''}"
        )

    async def crc_of(
        self, store: StorageBackend, info: ObjectInfo, key: ObjectKey, *, may_yield: bool = False
    ) -> int:
        """The CRC32C of what the store holds at `key`, which `info` describes: its own word, or read back. With
        `may_yield`, raises Preempted between two reads once another copy should have the slot."""
        if info.crc32c is not None:
            return info.crc32c
        crc, start = Crc32c(), 0
        while start < info.size_bytes:
            if may_yield and self.should_yield():
                raise Preempted(
                    f"{key}: it is stored, and {start:,} of its {info.size_bytes:,} bytes are read back"
                )
            piece = await self.ask(partial(store.read, key, start, _READ_BACK_BYTES))
            if not piece:
                break
            crc.update(piece)
            start += len(piece)
        return crc.value


def _delete_own(store: StorageBackend, key: ObjectKey, info: ObjectInfo) -> bool:
    """Delete the object of `info`, and only that one, at `key`; whether it was. A store that cannot tell versions
    apart keeps it: nothing lists it, and the next attempt writes over it."""
    with suppress(StorageError):
        there = store.stat(key)
        if there is not None and info.etag is not None and there.etag == info.etag:
            store.delete(key)
            return True
    return False
