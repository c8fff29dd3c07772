"""Re-reading what is archived, a budget at a time, so that rot is found while someone can still act."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import structlog

from archiving import keys
from archiving.commit import give_back, take_back
from archiving.damage import damaged
from archiving.deadlines import is_over
from archiving.errors import ManifestError
from archiving.exclusive import Turn, only_one
from archiving.judging import as_known
from archiving.manifest import read_manifest
from archiving.verification import check_contents
from ledger.base import AssetState, Ledger, Row
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError

log = structlog.get_logger(__name__)

FULL_PASS_DAYS = 30  # everything is read within a month (design.md, scrub)
STALE_UPLOAD = timedelta(days=7)  # a GCS session lives as long; no copy of ours takes a day
FACT = "scrub:"
LOCK_NAME = "scrub"
LOCK = timedelta(hours=2)  # extended at every manifest; the largest asset reads back within


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """One run over all destinations."""

    manifests: int
    read_bytes: int
    damaged: int
    stale_uploads: int


class Scrubber:
    def __init__(
        self, *, ledger: Ledger, destinations: Sequence[StorageBackend], clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._destinations = list(destinations)
        self._clock = clock

    def scrub(self) -> ScrubResult | None:
        """Read back one thirtieth of the manifests of each destination, going on where the last run ended, and
        abort uploads that nobody goes on with. What is damaged is logged, and made due again or, when its source is
        gone, DAMAGED; None when another run is at it. Repeatable."""
        with only_one(self._ledger, LOCK_NAME, LOCK) as turn:
            return self._scrub(turn) if turn else None

    def _scrub(self, turn: Turn) -> ScrubResult:
        manifests = read_bytes = damaged = stale = 0
        for store in self._destinations:
            try:
                stale += store.abort_stale_uploads(STALE_UPLOAD)
                for key in self._next_keys(store):
                    turn.extend()
                    # before it is read: one that cannot be must not hold up all behind it for ever
                    self._ledger.remember(FACT + store.name, {"after": key})
                    manifests += 1
                    before = self._row(key)
                    size, problems = self._check(store, key)
                    read_bytes += size
                    if problems:
                        damaged += 1
                        self._report(store, key, problems, before)
            except StorageError as error:
                log.error("scrub_stopped", store=store.name, reason=str(error))
        result = ScrubResult(manifests, read_bytes, damaged, stale)
        log.info("scrub_ended", **asdict(result))
        return result

    def _next_keys(self, store: StorageBackend) -> list[ObjectKey]:
        all_keys = sorted(info.key for info in store.list(f"{keys.MANIFESTS_FOLDER}/"))
        after = (self._ledger.recall(FACT + store.name) or {}).get("after", "")
        later = [key for key in all_keys if key > str(after)]
        share = -(-len(all_keys) // FULL_PASS_DAYS)
        return (later or all_keys)[:share]

    def _check(self, store: StorageBackend, key: ObjectKey) -> tuple[int, tuple[str, ...]]:
        try:
            manifest = read_manifest(store, key)
        except ManifestError as error:
            return 0, (str(error),)
        if manifest is None:
            return 0, ("the manifest is gone",)
        verified = check_contents(store, manifest)
        if verified.ok and manifest.damage:
            give_back(store, key, manifest)
        return verified.read_bytes, verified.problems

    def _row(self, key: ObjectKey) -> Row | None:
        asset_id = keys.asset_id_of(key)
        return self._ledger.get(asset_id) if asset_id else None

    def _report(
        self, store: StorageBackend, key: ObjectKey, problems: tuple[str, ...], before: Row | None
    ) -> None:
        """Take the damaged commit back, so that the asset is copied again while the source may still have it;
        afterwards a person is asked to restore it. Either way the rest of the copy stays: it may be all there is. What
        a worker has or had in hand meanwhile is left alone: it may be whole by now."""
        log.error("archive_damaged", store=store.name, key=key, problems=problems[:5])
        row = self._row(key)
        if row is None or before is None or (row.state, row.changed_at) != (before.state, before.changed_at):
            return
        if row.state not in (AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.DAMAGED):
            return
        note = ""
        try:
            take_back(store, key, problems)
        except StorageError as error:  # and so by its sizes it would be taken for archived, not copied again
            note = f"the manifest could not be marked ({error})"
        if note or is_over(row, self._clock()):
            found = {
                each.name: problems if each is store else self._problems_at(each, key)
                for each in self._destinations
            }
            how = damaged(
                row.asset_id,
                found,
                stored_bytes=row.stored_bytes,
                stored_objects=row.stored_objects,
                note=note,
            )
            self._ledger.record_archived(as_known(row), how)
        else:
            self._ledger.reopen(row.asset_id)

    def _problems_at(self, store: StorageBackend, key: ObjectKey) -> tuple[str, ...]:
        """Of another copy: read back, for it is what the damaged one would be restored from."""
        try:
            return self._check(store, key)[1]
        except StorageError as error:
            return (f"it could not be read: {error}",)
