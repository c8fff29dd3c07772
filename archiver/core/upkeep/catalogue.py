"""The catalogue: a table of what a destination holds, an object for each month, so that any tool can search it.

A gzipped CSV file with a header and a row for each manifest of the month, by the manifest's key. The manifests decide:
it can be deleted and made again at any time, and nothing of this service reads it.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from archiver.core.records import keys
from archiver.core.records.manifest import Manifest, find_manifest
from archiver.core.records.removal import forget_rows
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.hms.models import Asset
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend

log = structlog.get_logger(__name__)

COLUMNS = (
    "asset_id",
    "type",
    "room_id",
    "session_id",
    "created_at",
    "archived_at",
    "state",
    "form",
    "objects",
    "size_bytes",
    "folder",
    "manifest",
)
READERS = 8
"""Manifests read at the same time."""

_AT_ONCE = 1000
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The catalogue of one month at one destination. `written`: False when there was no manifest, or the same
    catalogue is there already."""

    key: ObjectKey
    rows: int
    size_bytes: int
    written: bool


def is_month(text: str) -> bool:
    """Whether `text` names a catalogue: `yyyy-mm`, or `undated` for assets without a date."""
    return text == keys.UNDATED_MONTH or _MONTH.fullmatch(text) is not None


def recent_months(now: datetime) -> list[str]:
    """Return last month and this one: assets are archived up to 15 days after they were created."""
    before = (now.year, now.month - 1) if now.month > 1 else (now.year - 1, 12)
    return [f"{year:04}-{month:02}" for year, month in (before, (now.year, now.month))]


def months_of(store: StorageBackend) -> list[str]:
    """Return every month that has a manifest. Lists them all. Raises StorageError."""
    months = (keys.month_of(info.key) for info in store.list(keys.MANIFESTS))
    return sorted({month for month in months if month is not None})


def write_catalogue(
    store: StorageBackend, month: str, on_progress: OnProgress = ignore_progress
) -> Catalogue:
    """Make the catalogue of a month from the manifests that the store holds, and write it unless it is there already.

    The same manifests give the same bytes. Without a manifest nothing is written, and an older catalogue stays: it may
    be the last trace of them. Idempotent. Memory: the keys of the month, and its compressed catalogue. Requests: a LIST
    for each 1,000 manifests, before and after, and a HEAD and a GET for each. Raises StorageError."""
    key = keys.catalogue_key(month)
    listed = (info.key for info in store.list(keys.manifests_of(month)))
    manifests = sorted(each for each in listed if each.endswith(".json"))
    packed, rows = io.BytesIO(), 0
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as raw,
        io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in _rows(store, manifests):
            on_progress(f"reading manifests of {month} at {store.name}", rows, len(manifests))
            writer.writerow(row)
            rows += 1
    data = packed.getvalue()
    written = rows > 0 and not _is_there(store, key, data)
    if written:
        store.put(ObjectSpec(key, "application/gzip", len(data)), data, crc32c(data))
        still_there = {info.key for info in store.list(keys.manifests_of(month))}
        if erased := [each for each in manifests if each not in still_there]:  # meanwhile: leave no row of it
            forget_rows(store, erased)
        log.info("catalogue_written", store=store.name, key=key, rows=rows)
    return Catalogue(key, rows, len(data), written)


def _rows(store: StorageBackend, manifests: Sequence[ObjectKey]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each manifest, in order."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="catalogue") as pool:
        for first in range(0, len(manifests), _AT_ONCE):
            found = pool.map(partial(_row, store), manifests[first : first + _AT_ONCE])
            yield from (row for row in found if row is not None)


def _row(store: StorageBackend, key: ObjectKey) -> tuple[object, ...] | None:
    """None when the manifest is gone since the list was made."""
    stored = find_manifest(store, key)
    if stored is None:
        return None
    if stored.manifest is None:
        log.error("manifest_unreadable", store=store.name, key=key, reason=stored.problem)
        known = {"asset_id": keys.asset_id_of(key), "state": "unreadable", "manifest": key}
        return tuple(known.get(name) for name in COLUMNS)
    manifest = stored.manifest
    asset = Asset.parse({**manifest.asset, "id": manifest.asset_id})
    return (
        manifest.asset_id,
        asset.type,
        asset.room_id,
        asset.session_id,
        _time(asset.created_at),
        _time(manifest.archived_at),
        _state(manifest),
        manifest.form,
        len(manifest.objects),
        manifest.total_size,
        manifest.folder,
        key,
    )


def _state(manifest: Manifest) -> str:
    if manifest.damage:
        return "damaged"
    return "archived" if manifest.trusted else "quarantined"


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat() if moment is not None else ""


def _is_there(store: StorageBackend, key: ObjectKey, data: bytes) -> bool:
    info = store.stat(key)
    return info is not None and info.size_bytes == len(data) and store.read(key, 0, len(data)) == data
