"""A destination that checks before each call that it is the one that the ledger knows (core.destinations.checked).

A wrapper of the backend, so that nothing that copies, compares, scrubs or records can forget the check.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import structlog

from archiver.core.destinations.checked import CHECK_BEFORE_COMMIT, CHECK_EVERY, Destinations
from archiver.core.records import keys
from archiver.ledger.errors import LedgerError
from storage_backends.base import (
    Buffer,
    Limits,
    ObjectInfo,
    ObjectKey,
    ObjectSpec,
    StorageBackend,
    Upload,
)
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

_RECORDS = (keys.MANIFESTS, keys.ENDS)
_CHECKED = (
    "abort_stale_uploads",
    "abort_uploads",
    "copy_from",
    "delete_versions",
    "expiry_rules",
    "lock",
    "remove_empty_folders",
    "versions",
)
_NEVER_UNMOUNTED = ("s3://", "gs://", "az://")


def guarded(stores: Sequence[StorageBackend], destinations: Destinations) -> list[StorageBackend]:
    """Wrap each of `stores`."""
    return [GuardedBackend(store, destinations) for store in stores]


def is_still_there(store: StorageBackend) -> bool:
    """Whether what was just written to `store` is at the destination: its marker is read again where a disk may have
    been unmounted meanwhile. A store without checks counts as there."""
    return not isinstance(store, GuardedBackend) or store.is_still_there()


class GuardedBackend:
    """A `storage_backends.base.StorageBackend` whose every call also raises what `Destinations.confirm` does.

    A write under `manifests/` or `ends/` is preceded by a fresh check and, where a disk may be unmounted in between,
    followed by another: what was written then lies below the mount point.
    """

    def __init__(self, store: StorageBackend, destinations: Destinations) -> None:
        self._store = store
        self._destinations = destinations
        self.name = store.name  # asked for thirty times an asset

    @property
    def limits(self) -> Limits:
        return self._store.limits

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        self._confirm(_age_for(spec.key))
        info = self._noted(lambda: self._store.put(spec, data, crc32c))
        if spec.key.startswith(_RECORDS) and not self.name.startswith(_NEVER_UNMOUNTED):
            self._destinations.confirm_again(self.name)
        return info

    def is_still_there(self) -> bool:
        if self.name.startswith(_NEVER_UNMOUNTED):
            return True
        try:
            self._destinations.confirm_again(self.name)
        except (StorageError, LedgerError) as error:
            log.warning("stored_objects_not_recorded", store=self.name, error=str(error))
            return False
        return True

    def begin(self, spec: ObjectSpec) -> Upload:
        self._confirm()
        try:
            return self._store.begin(spec)
        except StorageError as error:
            self._destinations.wrote(self.name, error)
            raise

    def resume(self, spec: ObjectSpec, token: str) -> Upload:
        self._confirm()
        return self._store.resume(spec, token)

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        self._confirm()
        return self._store.stat(key)

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        self._confirm()
        return self._store.read(key, start, length_bytes, if_match=if_match)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Check again at the end: what an unmounted disk does not list is not gone."""
        self._confirm()
        yield from self._store.list(prefix)
        self._confirm(CHECK_BEFORE_COMMIT)

    def delete(self, key: ObjectKey) -> None:
        self._confirm(_age_for(key))
        self._store.delete(key)

    def close(self) -> None:
        self._store.close()

    def __getattr__(self, name: str) -> Any:
        """Pass on what a backend offers beyond the contract (storage_backends/optional.py), behind the check as well.
        `send` must not wait, so it relies on the last check."""
        found = getattr(self._store, name)
        if name == "send":
            return self._sending(found)
        return self._confirming(found) if name in _CHECKED else found

    def _confirming(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded_call(*arguments: Any, **options: Any) -> Any:
            self._confirm()
            return call(*arguments, **options)

        return guarded_call

    def _sending(self, send: Callable[..., Awaitable[ObjectInfo]]) -> Callable[..., Awaitable[ObjectInfo]]:
        async def guarded_send(spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
            self._destinations.confirmed(self.name)
            try:
                info = await send(spec, data, crc32c)
            except StorageError as error:
                self._destinations.wrote(self.name, error)
                raise
            self._destinations.wrote(self.name, None)
            return info

        return guarded_send

    def _confirm(self, max_age: timedelta = CHECK_EVERY) -> None:
        self._destinations.confirm(self.name, max_age)

    def _noted(self, write: Callable[[], ObjectInfo]) -> ObjectInfo:
        try:
            info = write()
        except StorageError as error:
            self._destinations.wrote(self.name, error)
            raise
        self._destinations.wrote(self.name, None)
        return info


def _age_for(key: ObjectKey) -> timedelta:
    return CHECK_BEFORE_COMMIT if key.startswith(_RECORDS) else CHECK_EVERY
