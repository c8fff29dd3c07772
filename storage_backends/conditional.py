"""Conditional writes, on stores that support conditions and on those that do not.

A store's conditions are relied on only after it was seen to refuse one that does not hold: many S3 compatibles silently
ignore If-Match and If-None-Match, others refuse every request that has one. On all of those: check, then write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectSpec, StorageBackend
from storage_backends.equal import found_equal
from storage_backends.errors import AccessDenied, ObjectChanged, ObjectExists, StorageError

T = TypeVar("T")


def replace_if(
    store: StorageBackend, spec: ObjectSpec, data: Buffer, crc32c: int, expected: ObjectInfo | None
) -> ObjectInfo:
    """Put `data` at `spec.key` while the key holds `expected` (None: nothing), and return the object there.

    Take `expected` by `stat` before reading the object it describes. The same content already there is success: the
    call is idempotent, also after a lost answer and where overwriting is refused. Raises ObjectChanged when another
    object, or none, is there, and leaves it. Other errors as `put`.

    Atomic where `store.limits` says so (`conditional_create`, `conditional_replace`). Elsewhere the key is compared
    just before the write, and another writer's object in between is lost. Sets `if_absent` and `if_match` of `spec`.
    """
    limits = store.limits
    if expected is None:
        spec, atomic = replace(spec, if_absent=True, if_match=None), limits.conditional_create
    else:
        spec, atomic = replace(spec, if_absent=False, if_match=expected.etag), limits.conditional_replace
    try:
        if not (atomic and (expected is None or expected.etag is not None)):
            _compare(store, spec, expected)
        return store.put(spec, data, crc32c)
    except (ObjectExists, ObjectChanged, AccessDenied) as error:
        there = found_equal(store, spec.key, len(data), crc32c)
        if there is not None:
            return there
        if isinstance(error, ObjectExists):
            raise ObjectChanged(f"{error}; nothing was expected there") from error
        raise


def _compare(store: StorageBackend, spec: ObjectSpec, expected: ObjectInfo | None) -> None:
    there = store.stat(spec.key)
    if _version(there) != _version(expected):
        raise ObjectChanged(f"replacing {spec.key!r} in {store.name}: the key holds another object")


def _version(info: ObjectInfo | None) -> object:
    if info is None or info.etag is not None:
        return info and info.etag
    return info.size_bytes, info.crc32c, info.updated_at


def with_conditions(limits: Limits, *, creates: bool, replaces: bool) -> Limits:
    """Return `limits` with what is known of conditional writes by now: themselves, where they say so already."""
    if limits.conditional_create == creates and limits.conditional_replace == replaces:
        return limits
    return replace(limits, conditional_create=creates, conditional_replace=replaces)


class Conditions:
    """What this process has learned of one store's conditional writes. For backends; thread-safe.

    `send` raises ObjectExists or ObjectChanged for a condition that does not hold, and a plain StorageError or
    AccessDenied for one that the store does not support; it recognises an object made by an earlier attempt of its own.
    """

    def __init__(self) -> None:
        self._creates: bool | None = None  # None: not known yet
        self._replaces: bool | None = None

    @property
    def creates(self) -> bool:
        """Return whether the store was seen to refuse to create what exists."""
        return self._creates is True

    @property
    def replaces(self) -> bool:
        """Return whether the store was seen to refuse to replace what is not expected."""
        return self._replaces is True

    def trust_creates(self) -> None:
        """For a service that documents it."""
        if self._creates is None:
            self._creates = True

    def create(self, look: Callable[[], bool], send: Callable[[bool], T], doing: object) -> T:
        """Create an object. `send(True)` sends the condition, `send(False)` does not; `look` says whether the key is
        taken. Raises ObjectExists."""
        taken = ObjectExists(f"{doing}: the key is taken")
        if not self.creates and look():
            raise taken
        if self._creates is not False:
            try:
                return send(True)
            except ObjectExists:
                if self.creates or look():
                    self._creates = True
                    raise
                # it refuses although the key is free: conditions do not work here
            except StorageError as error:
                if not _may_be_unknown(error):
                    raise
                if self.creates and look():
                    raise taken from error
        done = send(False)
        self._creates = False  # learned: without the condition, it is accepted
        return done

    def replace(
        self,
        expected: str,
        look: Callable[[], str | None],
        send: Callable[[str | None], T],
        never: str,
        doing: object,
    ) -> T:
        """Replace an object. `send(etag)` sends the condition, `send(None)` does not; `look` returns the etag that the
        key holds; `never` is an etag that no object has. Raises ObjectChanged.

        The first replacement is sent with `never` before. A store that accepts that ignores conditions, and has written
        what an unconditional write would have written.
        """
        changed = ObjectChanged(f"{doing}: the key holds another object")
        if not self.replaces and look() != expected:
            raise changed
        if self._replaces is not False:
            try:
                if self._replaces is None and (ignored := self._ignored(send, never)):
                    self._replaces = False
                    return ignored[0]
                done = send(expected)
                self._replaces = True
                return done
            except ObjectChanged:
                if look() != expected:
                    raise
                # it refuses a condition that holds: conditions do not work here
            except StorageError as error:
                if not _may_be_unknown(error):
                    raise
                if self.replaces and look() != expected:
                    raise changed from error
        done = send(None)
        self._replaces = False
        return done

    def _ignored(self, send: Callable[[str | None], T], never: str) -> tuple[T] | None:
        """Return what was written although the condition does not hold; None when it was refused."""
        try:
            return (send(never),)
        except ObjectChanged:
            return None


def _may_be_unknown(error: StorageError) -> bool:
    """Return whether a request may have been refused only for its condition: 400, 403, 405, 411, 501..."""
    return type(error) in (StorageError, AccessDenied)
