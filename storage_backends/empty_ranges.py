"""Reading a range of an object that holds no byte: one of no length, or one from the object's end on."""

from __future__ import annotations

from typing import Protocol

from storage_backends.base import ObjectInfo, ObjectKey
from storage_backends.errors import ObjectChanged, ObjectMissing, TransientStorageError
from storage_backends.operation import Operation


class Stats(Protocol):
    def stat(self, key: ObjectKey) -> ObjectInfo | None: ...


def no_bytes(
    store: Stats, key: ObjectKey, if_match: str | None, doing: Operation, refused_start: int | None = None
) -> bytes:
    """Return b"" if the object is there. `refused_start`: where a range begins that the server says is not there.
    Raises ObjectMissing; ObjectChanged if it is not the one of `if_match`; TransientStorageError if it is longer
    than `refused_start`; and what `stat` raises."""
    info = store.stat(key)
    if info is None:
        raise ObjectMissing(f"{doing}: it is not there")
    require_match(info.etag, if_match, doing)
    if refused_start is not None and info.size_bytes > refused_start:
        raise TransientStorageError(
            f"{doing}: the server denies that it has bytes from {refused_start}, of {info.size_bytes}",
            status=416,
        )
    return b""


def require_match(etag: str | None, expected: str | None, doing: Operation) -> None:
    """Raise ObjectChanged unless the etag is the one that is expected, if any is."""
    if expected not in (None, etag):
        raise ObjectChanged(f"{doing}: the key holds another object")
