"""A signed statement of what a destination held of a month, one object for each month, chained to the month before.

    statements/<yyyy>-<mm>.json   the statement
    statements/<yyyy>-<mm>.sig    64 bytes: Ed25519 (RFC 8032) over the bytes of the statement
    statements/<yyyy>-<mm>.tsr    optional: a time stamp of its SHA-256 (RFC 3161)

`docs/verify_statements.py` verifies them without this package.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from archiver.core.records import keys
from archiver.core.records.manifest import MAX_MANIFEST_BYTES, Manifest, ManifestObject
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.conditional import replace_if
from storage_backends.errors import ObjectChanged

SCHEMA = "archiver.statement/1"
MAX_BYTES = 1024 * 1024 * 1024  # four million assets
_MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")


class StatementRefused(Exception):
    """A statement cannot be made; the message says why, and what to do."""


class SigningKey:
    """An Ed25519 key: 32 bytes in base64, as `archiver statement new-key` prints them. Raises ValueError."""

    def __init__(self, text: str) -> None:
        try:
            seed = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            seed = b""
        if len(seed) != 32:
            raise ValueError("is not a key as `archiver statement new-key` prints it: 32 bytes in base64")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def new(cls) -> tuple[str, SigningKey]:
        """Return a new key, and its text, which is a SECRET."""
        text = base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()
        return text, cls(text)

    @property
    def public(self) -> str:
        """Return the public key: 32 bytes in base64."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    @property
    def public_pem(self) -> str:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement that is stored. `digest`: SHA-256 of its bytes."""

    month: str
    digest: str
    public_key: str


def is_month(text: str) -> bool:
    return _MONTH.fullmatch(text) is not None


def next_month(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04}-{number % 12 + 1:02}"


def first_day(month: str) -> datetime:
    return datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC)


def due_at(month: str, retention: timedelta) -> datetime:
    """Return when a month is due to be stated: nothing of it can be archived any more."""
    return first_day(next_month(month)) + retention + timedelta(days=1)


def last_due(now: datetime, retention: timedelta) -> str:
    """Return the last month that is due."""
    over = now.astimezone(UTC) - retention - timedelta(days=1)
    return f"{over.replace(day=1) - timedelta(days=1):%Y-%m}"


def key_of(month: str, suffix: str = "json") -> ObjectKey:
    return keys.statement_key(month, suffix)


def months_stated(store: StorageBackend) -> list[str]:
    """Return the months that have a statement, the first one first. Raises StorageError."""
    names = (info.key.removeprefix(keys.STATEMENTS) for info in store.list(keys.STATEMENTS))
    return sorted(n.removesuffix(".json") for n in names if n.endswith(".json") and is_month(n[:-5]))


def read(store: StorageBackend, month: str) -> tuple[Stated, bytes] | None:
    """Return a statement and its bytes. Raises StatementRefused when it cannot be understood, StorageError."""
    info = store.stat(key_of(month))
    if info is None:
        return None
    data = store.read(info.key, 0, min(info.size_bytes, MAX_BYTES))
    try:
        parsed = json.loads(data)
        stated = Stated(parsed["month"], hashlib.sha256(data).hexdigest(), parsed["public_key"])
        if parsed["schema"] != SCHEMA or stated.month != month:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise StatementRefused(
            f"{store.name}/{info.key} is not a statement of {month}: it was altered, or is of a newer version. Nothing "
            "is stated after it until it is as it was"
        ) from None
    return stated, data


def entry_of(key: ObjectKey, data: bytes) -> dict[str, Any]:
    """Describe a manifest by its bytes. One that cannot be understood has its digest alone."""
    entry: dict[str, Any] = {"manifest": key, "sha256": hashlib.sha256(data).hexdigest()}
    try:
        manifest = Manifest.model_validate_json(data)
    except ValueError:
        return {**entry, "state": "unreadable"}
    state = "damaged" if manifest.damage else "archived" if manifest.trusted else "quarantined"
    return {
        **entry,
        "state": state,
        "archived_at": manifest.archived_at.astimezone(UTC).isoformat(),
        "fence": manifest.fence,
        "objects": len(manifest.objects),
        "bytes": manifest.total_size,
        "objects_sha256": objects_digest(manifest.objects),
    }


def objects_digest(objects: Iterable[ManifestObject]) -> str:
    """Return the SHA-256 of `path`, size and CRC32C of each object, a line each, sorted. It stays when a manifest is
    marked or accepted."""
    lines = sorted(f"{item.path}\t{item.size}\t{item.crc32c}\n" for item in objects)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def written(
    *,
    month: str,
    destination: str,
    made_at: datetime,
    version: str,
    previous: Stated | None,
    public_key: str,
    assets: Sequence[Mapping[str, Any]],
    ends: Sequence[Mapping[str, Any]],
) -> bytes:
    """Return the bytes of a statement. The same input gives the same bytes."""
    statement = {
        "schema": SCHEMA,
        "month": month,
        "destination": destination,
        "made_at": made_at.astimezone(UTC).isoformat(),
        "archiver_version": version,
        "previous": {"month": previous.month, "sha256": previous.digest} if previous else None,
        "public_key": public_key,
        "assets": assets,
        "ends": ends,
    }
    return json.dumps(statement, separators=(",", ":")).encode() + b"\n"


def store_statement(store: StorageBackend, month: str, data: bytes, key: SigningKey) -> bytes:
    """Store a statement unless there is one, and its signature. Return the bytes of the one that is there: another
    process may have been faster. Idempotent. Raises StatementRefused, StorageError."""
    with contextlib.suppress(ObjectChanged):
        replace_if(
            store,
            ObjectSpec(key_of(month), "application/json", len(data), lock=True),
            data,
            crc32c(data),
            None,
        )
    found = read(store, month)
    if found is None:
        raise StatementRefused(f"{store.name}/{key_of(month)} was deleted while it was made")
    stated, there = found
    sign(store, stated, there, key)
    return there


def sign(store: StorageBackend, stated: Stated, data: bytes, key: SigningKey) -> None:
    """Store the signature of a statement unless there is a valid one. Raises StatementRefused for a statement that
    names another key, or whose signature is not valid; StorageError."""
    at = key_of(stated.month, "sig")
    info = store.stat(at)
    if info is not None:
        if not is_valid(stated.public_key, data, store.read(at, 0, min(info.size_bytes, 64))):
            raise StatementRefused(
                f"{store.name}/{at} does not fit its statement: one of the two was altered. Restore both from the "
                "versions of the bucket"
            )
        return
    if stated.public_key != key.public:
        raise StatementRefused(
            f"{store.name}/{key_of(stated.month)} names another key than ARCHIVER_STATEMENT_KEY, and has no signature "
            "yet: set the key that it was made with once more"
        )
    signature = key.sign(data)
    replace_if(
        store,
        ObjectSpec(at, "application/octet-stream", len(signature), lock=True),
        signature,
        crc32c(signature),
        None,
    )


def is_valid(public_key: str, data: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_whole(store: StorageBackend, key: ObjectKey) -> bytes | None:
    """Return a record as it is stored; None when it is gone. Raises StorageError."""
    info = store.stat(key)
    return None if info is None else store.read(key, 0, min(info.size_bytes, MAX_MANIFEST_BYTES))
