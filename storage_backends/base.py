"""The contract of a storage backend, tested on every backend by `tests/contracts/storage_contract.py`.

A backend is opened on one destination (`s3://bucket/prefix`, `gs://...`, `file:///...`); keys are relative to the
destination's prefix. All methods may be called from several threads. Every call has a timeout. Every failure is a
`storage_backends.errors.StorageError`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NewType, Protocol

from storage_backends.errors import InvalidKey

ObjectKey = NewType("ObjectKey", str)
"""A key that every store accepts. Make it with `object_key`, never with a cast."""

Buffer = bytes | bytearray | memoryview

MAX_KEY_BYTES = 1024
MAX_SEGMENT_BYTES = 255

# A fast path for nearly all keys; an HLS tree has tens of thousands.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,254}(?:/[A-Za-z0-9_][A-Za-z0-9_.=-]{0,254})*")


@lru_cache(maxsize=1024)  # an asset's keys are checked at every call about them
def object_key(text: str) -> ObjectKey:
    """Return `text` as a key that means the same in every store. Raises InvalidKey.

    The rules: NFC, at most 1024 bytes, segments of 1 to 255 bytes, none of them `.` or
    `..`, no control character, no backslash, no leading slash, not `.well-known/acme-challenge/...` (GCS).
    """
    if len(text) <= MAX_KEY_BYTES and _PLAIN_KEY.fullmatch(text):
        return ObjectKey(text)
    _check_key(text)
    return ObjectKey(text)


def _check_key(text: str) -> None:
    if not text or unicodedata.normalize("NFC", text) != text:
        raise InvalidKey(f"object key {text!r} is empty or not in Unicode normal form C")
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise InvalidKey(f"object key {text!r} is not valid Unicode") from None
    if len(encoded) > MAX_KEY_BYTES:
        raise InvalidKey(f"object key {text[:80]!r}... has {len(encoded)} bytes, more than {MAX_KEY_BYTES}")
    if any(unicodedata.category(c) in ("Cc", "Cs") or c in "\\\u2028\u2029" for c in text):
        raise InvalidKey(f"object key {text!r} holds a control character or a backslash")
    for segment in text.split("/"):
        if segment in ("", ".", "..") or len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise InvalidKey(
                f"object key {text[:80]!r} has a segment that is empty, '.', '..' or over 255 bytes"
            )
    if text.startswith(".well-known/acme-challenge/"):
        raise InvalidKey(f"object key {text!r} is reserved by Google Cloud Storage")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store can do. Sizes in bytes."""

    min_part_bytes: int  # every part but the last
    max_part_bytes: int
    max_parts: int
    part_multiple_bytes: int  # a part size must be a multiple of this
    max_object_bytes: int
    parallel_parts: bool  # parts may be sent several at once, in any order
    conditional_create: bool  # `if_absent` is honoured by the store itself, atomically
    conditional_replace: bool = False  # and so is `if_match` of a `put`


@dataclass(slots=True, unsafe_hash=True)  # frozen, it would take three times as long to make
class ObjectSpec:
    """An object to store. `metadata` keys match `[a-z][a-z0-9]*`, since some servers change any other."""

    key: ObjectKey
    content_type: str
    size_bytes: int | None = None  # None: unknown until the end
    part_bytes: int = 0  # fixed slots: part n (from 1) covers [(n-1)*part_bytes, ...); unused by `put`
    metadata: Mapping[str, str] = field(default_factory=dict)
    if_absent: bool = False  # raise ObjectExists rather than replace, where limits.conditional_create
    if_match: str | None = None  # replace only the object with this etag, where limits.conditional_replace
    media: bool = False  # bytes of a recording, not a record about one: takes the destination's storage class
    labels: Mapping[str, str] = field(
        default_factory=dict
    )  # what it is of, for tags and metadata (labels.py)
    lock: bool = False  # from the moment it is stored, where the destination locks objects (optional.Locks)


@dataclass(slots=True, unsafe_hash=True)  # frozen, it would take three times as long to make
class ObjectInfo:
    """An object as the store describes it. `crc32c` is None where the store does not keep one. An entry of `list` may
    be `cold` although it was restored; `stat` knows."""

    key: ObjectKey
    size_bytes: int
    crc32c: int | None = None
    etag: str | None = None  # the store's own version of the content; opaque
    content_type: str | None = None
    updated_at: datetime | None = None
    storage_class: str | None = None  # as the store names it; None: its standard one, or it has none
    cold: bool = False  # cannot be read before a restore, or only for a fee: verify it by what `stat` says


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the store durably holds. `tag` is what the store returned for it (an S3 ETag); opaque."""

    number: int  # from 1
    size_bytes: int
    crc32c: int
    tag: str


class Upload(Protocol):
    """An upload in parts. The object is invisible until `complete`."""

    @property
    def spec(self) -> ObjectSpec: ...

    @property
    def token(self) -> str:
        """Return what `resume` needs, in this or another process. SECRET: a GCS session URI is a bearer token."""
        ...

    def parts(self) -> Mapping[int, Part] | None:
        """Return the parts that the store holds, by number; None where it cannot list them, and only the caller's own
        journal knows."""
        ...

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        """Send part `number`. Idempotent; of two sends the last counts. Raises ChecksumRejected, UploadGone."""
        ...

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        """Make the object visible, atomically, from `parts` in order. `crc32c` is that of the whole object.

        Idempotent, also after a lost answer. Raises ObjectExists (if_absent), UploadGone, ChecksumRejected.
        """
        ...

    def abort(self) -> None:
        """Discard the upload and its parts. Idempotent; never touches a completed object."""
        ...


class StorageBackend(Protocol):
    """One destination. Optional abilities are in `storage_backends.optional`."""

    @property
    def name(self) -> str:
        """The destination's URL without query or credentials: `s3://bucket/prefix`, or
        `s3://bucket/prefix (minio.example:9000)`. Stable and unique: the ledger and messages use it."""
        ...

    @property
    def limits(self) -> Limits: ...

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        """Store a small object in one request. Idempotent. Replaces an existing object unless `if_absent`; with
        `if_match` (of `put` only) raises ObjectChanged when the key holds another object, or none. Where overwriting is
        refused and the same content is there already, that is success."""
        ...

    def begin(self, spec: ObjectSpec) -> Upload: ...

    def resume(self, spec: ObjectSpec, token: str) -> Upload:
        """Resume an upload begun with the same `spec`, perhaps by another process. Raises UploadGone."""
        ...

    def stat(self, key: ObjectKey) -> ObjectInfo | None: ...

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        """Return the bytes of `[start, start + length_bytes)`, fewer at the end of the object, b"" past it.

        `length_bytes` bounds the memory. `if_match` is an etag: raises ObjectChanged when the key holds another object,
        so that ranges read one by one are of one object. Raises ObjectMissing.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Iterate over the visible objects whose key starts with `prefix`, in any order, fetching page by page. Entries
        may lack crc32c and content_type."""
        ...

    def delete(self, key: ObjectKey) -> None:
        """Delete an object. Idempotent: a missing key is no error."""
        ...

    def close(self) -> None: ...
