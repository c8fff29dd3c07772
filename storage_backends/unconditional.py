"""Backends written before `read(if_match=)`: the condition is checked by a `stat` instead."""

from __future__ import annotations

import inspect
from typing import Any, cast

from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import ObjectChanged, ObjectMissing
from storage_backends.operation import Operation


def with_conditional_reads(backend: StorageBackend) -> StorageBackend:
    """Return `backend` if its `read` has `if_match`, else a wrapper whose `read` has it."""
    parameters = inspect.signature(backend.read).parameters.values()
    if any(each.name == "if_match" or each.kind is each.VAR_KEYWORD for each in parameters):
        return backend
    return cast("StorageBackend", _ReadsThenStats(backend))


class _ReadsThenStats:
    """`backend`, every method of it, and a `read` that takes `if_match`."""

    def __init__(self, backend: StorageBackend) -> None:
        self._backend = backend

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        data = self._backend.read(key, start, length_bytes)
        if if_match is not None:
            self._require_match(key, if_match)  # afterwards: what was read is then what was expected
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def _require_match(self, key: ObjectKey, etag: str) -> None:
        with Operation("read", self._backend.name, key, "reading") as doing:
            info = self._backend.stat(key)
            if info is None:
                raise ObjectMissing(f"{doing}: it is not there")
            if info.etag != etag:
                raise ObjectChanged(f"{doing}: it is another one by now")
