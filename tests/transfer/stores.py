"""Stores for the engine's tests: a real one in memory, made ordered, forgetful, faulty or bottomless by wrapping."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from storage_backends.base import (
    Buffer,
    Limits,
    ObjectInfo,
    ObjectKey,
    ObjectSpec,
    Part,
    StorageBackend,
    Upload,
)
from storage_backends.errors import StorageError, TransientStorageError
from storage_backends.memory import MemoryBackend

T = TypeVar("T")


class Wrapped:
    """A store around another. `calls` counts what was asked of it, by method."""

    def __init__(self, inner: StorageBackend) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()
        self.sent_parts: list[int] = []
        self.lock = threading.Lock()

    def act(self, method: str, action: Callable[[], T]) -> T:
        with self.lock:
            self.calls[method] += 1
        return action()

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def limits(self) -> Limits:
        return self.inner.limits

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        return self.act("put", lambda: self.inner.put(spec, data, crc32c))

    def begin(self, spec: ObjectSpec) -> Upload:
        return self.upload(self.act("begin", lambda: self.inner.begin(spec)))

    def resume(self, spec: ObjectSpec, token: str) -> Upload:
        return self.upload(self.act("resume", lambda: self.inner.resume(spec, token)))

    def upload(self, inner: Upload) -> Upload:
        return WrappedUpload(self, inner)

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        return self.inner.stat(key)

    def read(
        self, key: ObjectKey, start: int = 0, length_bytes: int | None = None, *, if_match: str | None = None
    ) -> bytes:
        return self.act("read", lambda: self.inner.read(key, start, length_bytes, if_match=if_match))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def delete(self, key: ObjectKey) -> None:
        self.act("delete", lambda: self.inner.delete(key))

    def close(self) -> None:
        self.inner.close()


class WrappedUpload:
    def __init__(self, store: Wrapped, inner: Upload) -> None:
        self.store = store
        self.inner = inner

    @property
    def spec(self) -> ObjectSpec:
        return self.inner.spec

    @property
    def token(self) -> str:
        return self.inner.token

    def parts(self) -> Mapping[int, Part] | None:
        return self.inner.parts()

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        part = self.store.act("put_part", lambda: self.inner.put_part(number, data, crc32c))
        with self.store.lock:
            self.store.sent_parts.append(number)
        return part

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        return self.store.act("complete", lambda: self.inner.complete(parts, crc32c))

    def abort(self) -> None:
        self.store.act("abort", self.inner.abort)


class OrderedStore(Wrapped):
    """Takes parts one after the other, as a GCS session does, in multiples of 4 bytes, and cannot say what it holds."""

    @property
    def limits(self) -> Limits:
        return replace(self.inner.limits, parallel_parts=False, part_multiple_bytes=4)

    def upload(self, inner: Upload) -> Upload:
        return _OrderedUpload(self, inner)


class _OrderedUpload(WrappedUpload):
    def parts(self) -> None:
        return None

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        held = self.inner.parts()
        if held is not None:  # else it was completed
            assert number <= len(held) + 1, f"part {number} came where {len(held) + 1} was due"
        return super().put_part(number, data, crc32c)


class NoChecksumStore(Wrapped):
    """A store that keeps no CRC32C, as a plain S3 compatible."""

    def act(self, method: str, action: Callable[[], T]) -> T:
        answer = super().act(method, action)
        return replace(answer, crc32c=None) if isinstance(answer, ObjectInfo) else answer


class FaultyStore(Wrapped):
    """Each call of a method takes the next of the faults named for that method:

    before: refused before anything happened · half: half of the data arrived · lost: it was done, but the answer was
    lost · slow: another call was made meanwhile · twice: it happened twice · ok: nothing
    """

    def __init__(self, inner: StorageBackend, faults: Mapping[str, Sequence[str]]) -> None:
        super().__init__(inner)
        self.faults = {method: deque(names) for method, names in faults.items()}
        self._moved = threading.Condition()
        self._count = 0

    def act(self, method: str, action: Callable[[], T]) -> T:
        with self._moved:
            waiting = self.faults.get(method)
            fault = waiting.popleft() if waiting else "ok"
            self._count += 1
            seen = self._count
            self._moved.notify_all()
        with self.lock:
            self.calls[method] += 1
        if fault == "before":
            raise TransientStorageError(f"{method}: 503 SlowDown")
        if fault == "slow":
            with self._moved:
                self._moved.wait_for(lambda: self._count > seen, timeout=0.05)
        answer = action()
        if fault == "twice":
            answer = action()
        if fault == "lost":
            raise TransientStorageError(f"{method}: the connection was reset")
        return answer

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        return super().put(spec, self.halved("put", data), crc32c)

    def upload(self, inner: Upload) -> Upload:
        return _FaultyUpload(self, inner)

    def halved(self, method: str, data: Buffer) -> Buffer:
        waiting = self.faults.get(method)
        if waiting and waiting[0] == "half":
            waiting.popleft()
            return data[: len(data) // 2]
        return data


class _FaultyUpload(WrappedUpload):
    store: FaultyStore

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        return super().put_part(number, self.store.halved("put_part", data), crc32c)


class BrokenStore(Wrapped):
    """Fails every call of `method` with `error`."""

    def __init__(self, inner: StorageBackend, method: str, error: StorageError) -> None:
        super().__init__(inner)
        self._method = method
        self._error = error

    def act(self, method: str, action: Callable[[], T]) -> T:
        with self.lock:
            self.calls[method] += 1
        if method == self._method:
            raise self._error
        return action()


class BottomlessStore(MemoryBackend):
    """Keeps nothing of what it is sent but its description; fit for more bytes than there is memory."""

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        return ObjectInfo(spec.key, len(data), crc32c)

    def begin(self, spec: ObjectSpec) -> Upload:  # type: ignore[override]
        return _BottomlessUpload(spec)


class _BottomlessUpload:
    token = "token"

    def __init__(self, spec: ObjectSpec) -> None:
        self._spec = spec

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    def parts(self) -> None:
        return None

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        return Part(number, len(data), crc32c, "tag")

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        return ObjectInfo(self._spec.key, sum(part.size_bytes for part in parts), crc32c)

    def abort(self) -> None:
        return


def stored_in(store: StorageBackend) -> dict[str, bytes]:
    """Everything visible in a store in memory, by its own account, not through the interface under test."""
    inner = store
    while isinstance(inner, Wrapped):
        inner = inner.inner
    assert isinstance(inner, MemoryBackend)
    return {key: stored.data for key, stored in inner.store.objects.items()}


def open_uploads(store: StorageBackend) -> int:
    inner = store
    while isinstance(inner, Wrapped):
        inner = inner.inner
    assert isinstance(inner, MemoryBackend)
    return len(inner.store.uploads)
