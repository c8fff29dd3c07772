"""Optional abilities of a backend or an upload, one small Protocol for each.

A backend offers an ability by having its method. Callers look for the method (`getattr(store, "send", None)`) and do
without it otherwise, so a wrapper passes an ability on by `__getattr__`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, Part


class Sends(Protocol):
    """A backend whose objects go over our own HTTP client. Used by the transfer engine."""

    async def send(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        """Do what `put` does, without a thread that waits, and attempt it once."""
        ...


class SendsParts(Protocol):
    """An upload whose parts go over our own HTTP client. Used by the transfer engine."""

    async def send_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        """Do what `put_part` does, without a thread that waits, and attempt it once."""
        ...


class AbortsStaleUploads(Protocol):
    """A backend with unfinished uploads that do not end by themselves. Used by the scrub."""

    def abort_stale_uploads(self, older_than: timedelta) -> int:
        """Abort the uploads under this destination's prefix that were begun longer ago, and return how many. Return 0
        where they cannot be told from those of another program. Stale uploads are billed and invisible."""
        ...


class AbortsUploads(Protocol):
    """A backend that may share its bucket with other programs. Used by the scrub."""

    def abort_uploads(self, older_than: timedelta, ours: Callable[[str], bool]) -> int:
        """Do what `abort_stale_uploads` does, for those uploads whose key, without the destination's prefix, is
        `ours`."""
        ...


class RemovesStaleUploads(Protocol):
    """A backend that can tell whether the store removes unfinished uploads. Used by `archiver doctor`."""

    def removes_stale_uploads(self) -> bool | None:
        """Return whether the store has a rule of its own (an S3 lifecycle rule) or a lifetime for them; None when it
        does not say."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where the objects of a destination are. `store`: equal for destinations among which the store itself can copy;
    keys are relative to `prefix`, as in a backend."""

    store: str
    bucket: str
    prefix: str


class CopiesObjects(Protocol):
    """A backend whose store copies objects from one of its places to another, so that their bytes do not pass here.
    Used by `archiver replicate`."""

    def place(self) -> Place:
        """Return this destination's own place. Sends no request."""
        ...

    def copy_from(
        self,
        place: Place,
        key: ObjectKey,
        spec: ObjectSpec,
        crc32c: int,
        *,
        between: Callable[[], None] = lambda: None,
    ) -> ObjectInfo:
        """Store what is at `key` of `place`, whose `store` is ours, under `spec.key`, with the description of `spec`
        and the options of this destination. `spec.size_bytes` and `crc32c`: what the source should be; the caller
        verifies what is stored. `between`: called between the parts of a large object; what it raises ends the copy.
        Idempotent. Raises ObjectMissing for a missing source."""
        ...
