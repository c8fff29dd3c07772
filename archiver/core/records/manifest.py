"""The manifest: the record of a whole, verified asset at one destination. Writing it is the commit.

It can be verified with the bucket alone (`core.records.verify`) and rebuilds an empty ledger
(`core.upkeep.reconcile`). It never holds a URL with a query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from archiver.core.errors import ManifestError
from archiver.core.records import keys
from archiver.hms.models import Asset, parse_time
from storage_backends.base import ObjectInfo, ObjectKey, StorageBackend, object_key
from storage_backends.errors import InvalidKey

Schema = Literal["archiver.manifest/1", "archiver.manifest/2"]
TRUSTED: Schema = "archiver.manifest/1"
DOUBTED: Schema = "archiver.manifest/2"
"""Of an asset that is stored with doubts. Versions that know only the first schema ignore it."""

NO_FENCE = -1
"""Rank of a manifest without a fencing token, as an earlier version wrote it: below all others."""

MAX_MANIFEST_BYTES = 256 * 1024 * 1024  # a million objects; a larger one is not ours
_QUERY = re.compile(
    r"(https?://[^\s\"'<>?#]*)[?#][^\s\"'<>]*"
    # elsewhere `?` and `#` may be letters of a storage path; a parameter is none (`/a/b.mp4?X-Amz-Signature=...`)
    r"|\?[^\s\"'<>?=]*=[^\s\"'<>]*",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(//)[^\s\"'<>/?#@]*@")
_NEEDED = re.compile(r"[?#@]")  # each of the two matches one of these, which nearly no value has


@dataclass(frozen=True, slots=True)
class ManifestObject:
    """One stored object. `path` is relative to the manifest's `folder`; `size` is in bytes; `crc32c` is 8 hex
    digits. A plain dataclass: an asset may have 100,000 of them."""

    path: str
    size: Annotated[int, Field(ge=0)]
    crc32c: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    content_type: str
    source_etag: str | None = None
    rewritten: Mapping[str, Any] | None = None
    doubt: str | None = None  # why it is perhaps not what it should be; with schema 2 alone

    @property
    def crc(self) -> int:
        return int(self.crc32c, 16)


class Manifest(BaseModel):
    """Sizes in bytes, times in UTC.

    - `asset`: what the API gave, without the queries of URLs.
    - `damage`: why the asset counts as not archived (`core.records.commit.mark_damaged`).
    - `doubts`: why what is stored may not be what was expected; `missing`: paths that are not stored. Schema 2 only.
    - `fingerprint`: of what the attempt found, doubts included.
    - `accepted`: who accepted the doubts, when and why.
    - `fence`: fencing token of the attempt (docs/decisions/0008-fencing.md); an earlier version wrote none.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_version: Schema = Field(alias="schema")
    asset_id: str
    asset: Mapping[str, Any]
    folder: str
    form: str
    version: str
    objects: tuple[ManifestObject, ...]
    total_size: int
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = Field(default_factory=dict)
    damage: tuple[str, ...] | None = None
    doubts: tuple[str, ...] | None = None
    missing: tuple[str, ...] | None = None
    fingerprint: str | None = None
    accepted: Mapping[str, Any] | None = None
    fence: int | None = None
    archived_at: AwareDatetime
    archiver_version: str

    @property
    def trusted(self) -> bool:
        """Return whether it can commit its asset as archived: never with doubts, whatever its schema."""
        return self.schema_version == TRUSTED and not self.doubts

    @property
    def rank(self) -> int:
        """Its fencing token; NO_FENCE without one. Only a manifest of the same or a higher rank replaces it."""
        return NO_FENCE if self.fence is None else self.fence

    @property
    def approved_at(self) -> datetime:
        """Since when its asset is archived by it: what had doubts is when a person accepts them."""
        return max(self.archived_at, parse_time((self.accepted or {}).get("at")) or self.archived_at)

    def to_bytes(self) -> bytes:
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()

    def key_of(self, item: ManifestObject) -> ObjectKey:
        return object_key(f"{self.folder}/{item.path}")


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """What is at a manifest's key. `info`: from before the read, for `replace_if`. `manifest`: None when it cannot be
    understood, because of `problem`."""

    info: ObjectInfo
    manifest: Manifest | None
    problem: str | None = None


def find_manifest(store: StorageBackend, key: ObjectKey) -> StoredManifest | None:
    """Read what is at `key`; None when there is nothing. Raises StorageError."""
    info = store.stat(key)
    if info is None:
        return None
    if info.size_bytes > MAX_MANIFEST_BYTES:
        problem = f"{store.name}/{key} has {info.size_bytes} bytes, more than any manifest of ours"
        return StoredManifest(info, None, problem)
    try:
        manifest = Manifest.model_validate_json(store.read(key, 0, info.size_bytes))
        for item in manifest.objects:
            manifest.key_of(item)
    except (ValidationError, ValueError, InvalidKey) as error:
        count = error.error_count() if isinstance(error, ValidationError) else 1
        problem = f"{store.name}/{key} is not a manifest we understand ({count} faults)"
        return StoredManifest(info, None, problem)
    if (elsewhere := misplaced(key, manifest)) is not None:
        return StoredManifest(info, None, f"{store.name}/{key} proves nothing: {elsewhere}")
    return StoredManifest(info, manifest)


def misplaced(key: ObjectKey, manifest: Manifest) -> str | None:
    """Return why `manifest` is not one that we write at `key`; None when it may be. A manifest says what whoever can
    write to the bucket wants: it proves its own asset alone, in a folder of that asset."""
    own = keys.manifest_key(manifest.asset_id, None)
    if keys.record_name(key) != keys.record_name(own):
        return f"it is a manifest of {manifest.asset_id[:80]!r}"
    described = manifest.asset.get("id", manifest.asset_id)
    if described != manifest.asset_id:
        return f"it is a manifest of {manifest.asset_id[:80]!r} and describes {str(described)[:80]!r}"
    if keys.folder_of(manifest.asset_id, manifest.folder) is None:
        return f"its folder {manifest.folder[:200]!r} is not one of {manifest.asset_id[:80]!r}"
    return None


def read_manifest(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    """Read the manifest at `key`; None when there is none. Raises ManifestError when it cannot be understood,
    StorageError."""
    found = find_manifest(store, key)
    if found is None:
        return None
    if found.manifest is None:
        raise ManifestError(found.problem or "unreadable", store=store.name, key=key)
    return found.manifest


def without_queries(value: Any) -> Any:
    """Remove user info, query and fragment of every URL in a JSON value, and the `?name=value` of storage paths:
    pre-signed URLs are secrets."""
    if isinstance(value, str):
        if _NEEDED.search(value) is None:
            return value
        return _USER_INFO.sub(r"\1", _QUERY.sub(r"\1", value))
    if isinstance(value, Mapping):
        return {str(key): without_queries(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_queries(inner) for inner in value]
    return value


def new_manifest(
    asset: Asset,
    *,
    folder: str,
    form: str,
    version: str,
    objects: tuple[ManifestObject, ...],
    warnings: tuple[str, ...],
    facts: Mapping[str, object],
    now: datetime,
    archiver_version: str,
    fence: int | None = None,
    doubts: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    fingerprint: str | None = None,
) -> Manifest:
    """Create a manifest, of schema 2 when there are `doubts`."""
    return Manifest(
        schema_version=DOUBTED if doubts else TRUSTED,
        asset_id=asset.id,
        asset=without_queries(asset.raw),
        folder=folder,
        form=form,
        version=version,
        objects=objects,
        total_size=sum(item.size for item in objects),
        warnings=tuple(without_queries(list(warnings))),
        facts=without_queries(dict(facts)),
        doubts=tuple(without_queries(list(doubts))) or None,
        missing=missing or None,
        fingerprint=fingerprint if doubts else None,
        fence=fence,
        archived_at=now,
        archiver_version=archiver_version,
    )
