"""Read back what is known to be damaged before an attempt counts it: lists and manifests may call it whole.

A destination may not have let its manifest be marked (retention, Object Lock, no right to overwrite), and may refuse to
replace its objects. Then the ledger alone knows of the damage, and after the ledger was lost an end record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from archiver.core.attempt.looking import Found
from archiver.core.attempt.outcomes import Ended
from archiver.core.records import end_records, keys
from archiver.core.records.commit import Look, look_at, mark_damaged, read_twice
from archiver.core.records.manifest import Manifest
from archiver.core.records.unreplaced import Versions, unreplaced_problems, versions
from archiver.ledger.models import AssetState, CopyState, Row
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import AccessDenied, StorageError

log = structlog.get_logger(__name__)


class KnownDamage:
    """Of one asset. `between`: called before each read."""

    def __init__(
        self, row: Row, stores: Sequence[StorageBackend], between: Callable[[], None] = lambda: None
    ) -> None:
        self._row = row
        self._stores = stores
        self._between = between
        self._is_recorded: bool | None = None  # once the end records were read

    def look(
        self,
        store: StorageBackend,
        key: ObjectKey,
        how: Callable[[StorageBackend, ObjectKey], Look] = look_at,
    ) -> Look:
        """As `how`, but a copy that was found damaged counts only when every byte is right. Marks its manifest if the
        store allows it, else the look says `hidden`. Raises StorageError."""
        seen = how(store, key)
        if seen.manifest is None or not (seen.committed or _is_kept(seen.manifest)):
            return seen
        if not (problems := self.problems(store, seen.manifest)):
            return seen
        log.error("archive_still_damaged", store=store.name, key=key, problems=problems[:5])
        try:
            mark_damaged(store, key, problems, of=seen.manifest)
        except AccessDenied:
            return Look(seen.manifest, committed=False, hidden=problems[0])
        return look_at(store, key)

    def problems(self, store: StorageBackend, manifest: Manifest) -> Sequence[str]:
        """Read a copy back if it was found damaged. Raises StorageError."""
        return read_twice(store, manifest, between=self._between) if self._includes(store) else ()

    def _includes(self, store: StorageBackend) -> bool:
        known = self._row.copies.get(store.name)
        if known is None:
            return self._tells_an_end_record(store)
        return known is CopyState.DAMAGED

    def _tells_an_end_record(self, store: StorageBackend) -> bool:
        """Whether one says that the asset was found damaged. Raises StorageError of `store`'s own."""
        if self._is_recorded is None:
            key = keys.end_record_key(self._row.asset_id, self._row.created_at)
            states = {end_records.read_state(store, key)}
            for other in self._stores:
                if other is not store:
                    with suppress(StorageError):
                        states.add(end_records.read_state(other, key))
            self._is_recorded = not states.isdisjoint(end_records.MAY_BE_DAMAGED)
        return self._is_recorded


class Unreplaced:
    """What was in a folder before an attempt copied to it, at the destinations that held the asset before. Nothing is
    listed for an asset that is archived for the first time: what lies there is of an attempt that was interrupted, and
    the store's checksum of it has to do."""

    def __init__(
        self, row: Row, found: Found, stores: Sequence[StorageBackend], between: Callable[[], None]
    ) -> None:
        self._row = row
        self._found = found
        self._stores = stores
        self._between = between
        self._before: dict[str, Versions | None] = {}  # None: it could not be listed

    def note(self, folder: ObjectKey) -> None:
        """List `folder`. Never raises StorageError."""
        self._before = {}
        for store in self._stores:
            if self._held_it(store.name):
                self._before[store.name] = None
                with suppress(StorageError):
                    self._before[store.name] = versions(store, folder)

    def problems(self, store: StorageBackend, manifest: Manifest) -> Sequence[str]:
        """Read back what `store` has not replaced, but for what a manifest without damage lists, of a copy that nobody
        found damaged. Raises StorageError."""
        if store.name not in self._before:
            return ()
        paths = {item.path for item in manifest.objects}
        listed = self._found.present.get(store.name)
        is_damaged = self._row.copies.get(store.name) is CopyState.DAMAGED
        if listed is not None and listed.folder == manifest.folder and not listed.damage and not is_damaged:
            paths -= {item.path for item in listed.objects}
        before = self._before[store.name]
        return unreplaced_problems(store, manifest, before, paths, between=self._between)

    def _held_it(self, name: str) -> bool:
        known = self._row.copies.get(name, CopyState.LACKING)
        return known is not CopyState.LACKING or bool(self._row.history) or name in self._found.present


def _is_kept(manifest: Manifest) -> bool:
    return not manifest.trusted and not manifest.damage


def still_damaged(row: Row, found: Found) -> Ended:
    """The outcome for an asset that no attempt can save: what is damaged can be neither marked nor replaced."""
    names = "; ".join(f"{name}: {problem}" for name, problem in found.hidden.items())
    return Ended(
        AssetState.DAMAGED,
        f"found damaged, and its manifest cannot be replaced at {names}; restore what is damaged, then "
        f"`archiver verify {row.asset_id}`",
    )
