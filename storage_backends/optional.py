"""Optional abilities of a backend or an upload, one small Protocol for each.

A backend offers an ability by having its method. Callers look for the method (`getattr(store, "send", None)`) and do
without it otherwise, so a wrapper passes an ability on by `__getattr__`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, cast

from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec, Part, StorageBackend, Upload


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


class SignsUrls(Protocol):
    """A backend whose objects can be read by URL for a while, without credentials. Used by `archiver url`."""

    @property
    def longest_signature(self) -> timedelta:
        """The longest lifetime that `signed_url` takes."""
        ...

    def signed_url(self, key: ObjectKey, lifetime: timedelta) -> str:
        """Return a URL that anybody may GET for `lifetime`, by HTTP(S) ranges too. SECRET. Does not look whether the
        object exists. Raises AccessDenied when the credentials cannot sign."""
        ...


class GivesPaths(Protocol):
    """A backend whose objects are files of this machine. Used by `archiver url`."""

    def path_of(self, key: ObjectKey) -> str:
        """Return the absolute path of the object's file."""
        ...


class ThawSpeed(StrEnum):
    """How soon a cold object is to be readable. BULK is cheaper and takes longer."""

    STANDARD = "standard"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Thaw:
    """An object and its storage class. `ready_within`: the store's word for the longest wait from the request on; None:
    it can be read now, until `readable_until` where that is known. `asked`: this call made the request."""

    storage_class: str
    ready_within: timedelta | None = None
    readable_until: datetime | None = None
    asked: bool = False


class Thaws(Protocol):
    """A backend with storage classes that must be restored before they can be read. Used by `archiver restore`."""

    def thaw(self, key: ObjectKey, speed: ThawSpeed, days: int) -> Thaw:
        """Ask the store to make a cold object readable for `days`, unless it is or was asked already. Idempotent; never
        asks twice while a request is under way. Raises ObjectMissing."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object, or the mark of a deletion. `is_current`: it is what `stat` and `list` show.
    `gone_at`: it was deleted, cannot be deleted sooner, and the store removes it then (soft delete)."""

    key: ObjectKey
    id: str
    is_current: bool
    gone_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NotDeleted:
    """`locked_until`: a retention or Object Lock ends then; None where no date is known."""

    version: ObjectVersion
    reason: str
    locked_until: datetime | None = None


class KeepsVersions(Protocol):
    """A backend whose store may keep what was overwritten or deleted. Used by erasing."""

    def versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        """Iterate over every version, current or not, of the objects whose key starts with `prefix`, page by page. A
        store without versions has one of each. Raises AccessDenied when the credentials may not list them and it is not
        known that there are none."""
        ...

    def delete_versions(self, chosen: Sequence[ObjectVersion]) -> Sequence[NotDeleted]:
        """Delete exactly these, at most 1,000, and return those that the store refused. A version that is gone already
        counts as deleted."""
        ...


class RemovesEmptyFolders(Protocol):
    """A backend with folders that stay when they are empty. Used by erasing."""

    def remove_empty_folders(self, prefix: str) -> None:
        """Remove the empty folders under `prefix`, and itself. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """A rule of the bucket that deletes objects. `prefix`: of their keys, without the destination's; empty: all.
    `days`: since they were created."""

    name: str
    prefix: str
    days: int


class ReadsExpiryRules(Protocol):
    """A backend that can tell after how many days the store deletes objects by itself. Used by `archiver doctor`."""

    def expiry_rules(self) -> Sequence[ExpiryRule] | None:
        """Return the rules that reach objects of this destination; None when the store does not say."""
        ...


class Locks(Protocol):
    """A backend that may lock objects against deletion (S3 Object Lock, GCS object retention). Used when an asset is
    committed."""

    def lock(self, keys: Collection[ObjectKey]) -> datetime | None:
        """Lock the objects at `keys` for the days of the destination's settings, all until the moment that is
        returned; None, and no request, where none are set. Idempotent; never makes a lock shorter. Raises
        ObjectMissing."""
        ...


@dataclass(frozen=True, slots=True)
class CoolingRule:
    """A rule of the bucket that moves objects to a cold class. `prefix`: of their keys, without the destination's;
    empty: all. `days`: since they were created; None: at a date."""

    name: str
    prefix: str
    days: int | None
    storage_class: str


class ReadsCoolingRules(Protocol):
    """A backend that can tell which objects the store moves to a cold class. Used by `archiver doctor`."""

    def cooling_rules(self) -> Sequence[CoolingRule] | None:
        """Return the rules that reach objects of this destination; None when the store does not say."""
        ...


@dataclass(frozen=True, slots=True)
class ChecksumJob:
    """A job of the store that computes checksums. `succeeded`: None while it goes on. `total` and `done`: objects.
    `why`: why it failed."""

    job_id: str
    status: str
    succeeded: bool | None
    total: int = 0
    done: int = 0
    why: str = ""
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """What the store computed of one object: `crc32c` of the object with `etag`; or None, and `why`."""

    crc32c: int | None
    etag: str | None
    why: str


class ComputesChecksums(Protocol):
    """A backend whose store computes checksums of what it holds, without a download or a restore. Used by `archiver
    verify --at-rest`. Its methods raise StorageError."""

    @property
    def can_compute_checksums(self) -> bool:
        """Return whether the destination is set up for it."""
        ...

    def checksum_line(self, key: ObjectKey, note: str) -> bytes:
        """Return a line of the list of objects, which holds `note` as well. Sends no request."""
        ...

    def checksum_note(self, line: str) -> str:
        """Return the note in a line. Sends no request. Raises ValueError."""
        ...

    def begin_checksums(self, listing: ObjectKey, listing_etag: str, reports: str, token: str) -> str:
        """Begin to compute the CRC32C of the objects in `listing`, with a report below `reports`, and return the id of
        the job. Idempotent for one `token`."""
        ...

    def checksum_job(self, job_id: str) -> ChecksumJob: ...

    def checksums(self, reports: str, job_id: str) -> Iterator[tuple[ObjectKey, Computed]] | None:
        """Yield what the report of a job that has ended says; None when there is no report yet."""
        ...


@dataclass(frozen=True, slots=True)
class Right:
    """A right that was tried. `action`: as the vendor's policies name it. `granted`: None where it cannot be told.
    `needed_for`: empty for a right that the archiver does not need. `is_essential`: nothing is saved without it."""

    action: str
    granted: bool | None
    needed_for: str = ""
    is_essential: bool = False


class TellsRights(Protocol):
    """A backend that can tell which rights its credentials have. Used by `archiver doctor`."""

    def rights(self, probe: ObjectKey) -> Iterator[Right]:
        """Try each right that an archiving destination needs, and those it does not need that can be tried without
        changing anything. Writes and deletes only `probe`, whose key must be free. Raises StorageError when the store
        does not answer."""
        ...


def sends_of(store: StorageBackend) -> Sends | None:
    return cast("Sends", store) if hasattr(store, "send") else None


def sends_parts_of(upload: Upload) -> SendsParts | None:
    return cast("SendsParts", upload) if hasattr(upload, "send_part") else None


def rights_of(store: StorageBackend) -> TellsRights | None:
    return cast("TellsRights", store) if hasattr(store, "rights") else None


def checksums_of(store: StorageBackend) -> ComputesChecksums | None:
    """None, too, where the destination is not set up for it."""
    return cast("ComputesChecksums", store) if getattr(store, "can_compute_checksums", False) else None


def cooling_rules_of(store: StorageBackend) -> Sequence[CoolingRule] | None:
    """None, too, where the store cannot tell. Raises StorageError."""
    return cast("ReadsCoolingRules", store).cooling_rules() if hasattr(store, "cooling_rules") else None


def locks_of(store: StorageBackend) -> Locks | None:
    return cast("Locks", store) if callable(getattr(store, "lock", None)) else None
