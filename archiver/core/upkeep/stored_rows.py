"""Rows of assets that the ledger does not know, as their manifests at the destinations describe them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from archiver.core.attempt.doubts import reason_kept
from archiver.core.deadlines import UNDATED
from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.upkeep.copies import READERS, Copies, Copy, Selection, find
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.hms.models import Asset
from archiver.ledger.models import UNKNOWN_TYPE, AssetState, Row
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError


@dataclass(frozen=True, slots=True)
class Stored:
    """An asset that has a manifest. `asset`: as 100ms described it; `manifests`: every key that a destination has.
    `problem`: why none of them can be understood; then the row says little."""

    row: Row
    asset: Asset
    manifests: tuple[ObjectKey, ...]
    problem: str = ""


def find_stored(
    stores: Sequence[StorageBackend],
    asset_ids: Iterable[str],
    retention: timedelta,
    on_progress: OnProgress = ignore_progress,
    *,
    witnesses: Sequence[StorageBackend] | None = None,
) -> Iterator[Stored]:
    """Yield those of the assets that a destination has a manifest of, and that no destination among `witnesses` (by
    default `stores`) has a tombstone of.

    Requests: those of `core.upkeep.copies.find`, and a HEAD and a GET for each manifest. Raises StorageError when a
    destination cannot be listed or read: what it alone has would be missed."""

    def refuse(error: StorageError) -> None:
        raise error

    ids = tuple(dict.fromkeys(asset_ids))
    if not ids:
        return
    chosen = find(stores, Selection(asset_ids=ids), on_progress, refuse, witnesses)
    with ThreadPoolExecutor(READERS, thread_name_prefix="manifests") as pool:
        for copies, copy in pool.map(_best, [each for each in chosen if each.keys]):
            if copy is not None:
                yield Stored(_row(copy, retention), copy.asset, copies.keys)
            elif not copies.erased:
                problem = "; ".join(copies.problems) or "its manifest is gone"
                yield Stored(_unreadable(copies, problem), Asset(id=copies.asset_id), copies.keys, problem)


def ids_in_session(
    stores: Iterable[StorageBackend], template: str, session_id: str, room_id: str | None
) -> set[str]:
    """Return the ids of the assets whose folders are below that of a session; none when the key template does not put a
    session's assets into one folder. One LIST for each 1,000 objects of the session. Raises StorageError."""
    found: set[str] = set()
    if (folder := keys.session_folder(template, session_id, room_id)) is None:
        return found
    at = template.split("/").index("{asset_id}")
    for store in stores:
        for info in store.list(f"{folder}/"):
            segments = info.key.split("/")
            if len(segments) > at + 1 and (asset_id := keys.id_in_folder(segments[at])) is not None:
                found.add(asset_id)
    return found


def _best(copies: Copies) -> tuple[Copies, Copy | None]:
    copy = copies.best()
    if copy is None and copies.errors:
        raise copies.errors[0]
    return copies, copy


def _row(copy: Copy, retention: timedelta) -> Row:
    manifest = copy.manifest
    at: datetime = manifest.archived_at
    seen = judge(copy.asset, Scope(retention), at)
    state, reason = AssetState.ARCHIVED, None
    if manifest.damage:
        state, reason = AssetState.DAMAGED, "; ".join(manifest.damage)
    elif not manifest.trusted:
        state, reason = AssetState.QUARANTINED, reason_kept(manifest)
    return Row(
        asset_id=manifest.asset_id,
        type=seen.type,
        state=state,
        expires_at=seen.expires_at,
        first_seen_at=at,
        changed_at=at,
        created_at=seen.created_at,
        room_id=seen.room_id,
        session_id=seen.session_id,
        size_bytes=seen.size_bytes,
        reason=reason,
        stored_bytes=manifest.total_size,
        stored_objects=len(manifest.objects),
        warnings=tuple(manifest.warnings),
    )


def _unreadable(copies: Copies, problem: str) -> Row:
    created_on = keys.created_on(copies.keys[0])
    at = created_on or UNDATED
    return Row(
        asset_id=copies.asset_id,
        type=UNKNOWN_TYPE,
        state=AssetState.DAMAGED,
        expires_at=UNDATED,
        first_seen_at=at,
        changed_at=at,
        created_at=created_on,
        reason=problem,
    )
