"""What all ways of an object to a store share: the part that is sent, who sends it, the proof that it arrived."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TypeVar

from ledger.errors import LeaseLost, LedgerError
from storage_backends.base import Buffer, ObjectInfo, ObjectKey, StorageBackend
from storage_backends.errors import ChecksumRejected, StorageError, TransientStorageError
from transfer import stopping
from transfer.base import SavedUpload, UploadJournal
from transfer.checksums import Crc32c
from transfer.crew import Crew
from transfer.memory import Block
from transfer.retrying import Patience

T = TypeVar("T")

_READ_BACK_BYTES = 1024 * 1024
# of a process: 8 MiB beside the budget, which must not be waited for here: the blocks that fill it wait for the very
# threads that read back
_READ_BACKS = threading.BoundedSemaphore(8)


class FilledPart:
    """A part's bytes, shared by those who send them; the last `release` frees the block."""

    def __init__(self, number: int, size_bytes: int, crc: int, block: Block | None) -> None:
        self.number = number
        self.size_bytes = size_bytes
        self.crc32c = crc
        self._block = block
        self._holders = 1
        self._lock = threading.Lock()

    @property
    def data(self) -> Buffer:
        return self._block.contents(self.size_bytes) if self._block else b""

    def hold(self) -> FilledPart:
        with self._lock:
            self._holders += 1
        return self

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            last = not self._holders
        if last and self._block:
            self._block.release()


class Ending(Enum):
    """What becomes of an upload that will not be completed now."""

    DISCARD = "aborted and forgotten: nobody should go on with it"
    KEEP = "left for another attempt, when that can find it; else aborted"
    SEND = "the same, once the parts that were read already are sent"
    LEAVE = "not touched: we were told to stop, perhaps because it is another worker's now"


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What all ways to stores share."""

    crew: Crew
    patience: Patience
    journal: UploadJournal | None

    def note(self, write: Callable[[UploadJournal], T]) -> T | None:
        """Best effort: without its journal an upload is only not resumable. A lost lease is another matter."""
        if self.journal is None:
            return None
        try:
            return write(self.journal)
        except LeaseLost:
            raise
        except LedgerError:
            return None

    def load(self, store: str, key: ObjectKey) -> SavedUpload | None:
        return self.note(lambda journal: journal.load(store, key))

    def persist(self, action: Callable[[], T], *worth_it: type[StorageError]) -> T:
        """What `action` returns, tried again while it raises what is `worth_it`: passing faults, when nothing is given.
        The pauses between the tries end when told to stop."""
        kinds = worth_it or (TransientStorageError,)
        return self.patience.keep_trying(action, lambda error: isinstance(error, kinds))

    def prove(
        self, store: StorageBackend, key: ObjectKey, info: ObjectInfo, size_bytes: int, crc: int
    ) -> None:
        """By the store's own word where it keeps a checksum, else by reading the object back. Raises ChecksumRejected
        when it is not what it should be; it is deleted then: what we stored at `key`, whatever `info` calls it."""
        held = info.crc32c if info.crc32c is not None else self._read_back(store, key, info.size_bytes)
        if held == crc and info.size_bytes == size_bytes:
            return
        with suppress(StorageError):
            store.delete(key)  # what is not what it should be must not be found
        raise ChecksumRejected(
            f"{store.name} stored {key!r} as {info.size_bytes} bytes with CRC32C {held:08x}, "
            f"not as {size_bytes} bytes with {crc:08x}; it was deleted again"
        )

    def _read_back(self, store: StorageBackend, key: ObjectKey, size_bytes: int) -> int:
        crc, start = Crc32c(), 0
        while not _READ_BACKS.acquire(timeout=stopping.POLL_SECONDS):
            stopping.check()
        try:
            while start < size_bytes:
                stopping.check()
                piece = self.persist(partial(store.read, key, start, _READ_BACK_BYTES))
                if not piece:
                    break
                crc.update(piece)
                start += len(piece)
        finally:
            _READ_BACKS.release()
        return crc.value
