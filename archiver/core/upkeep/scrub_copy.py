"""Check one copy for the scrub: verify it against its manifest, and report damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from archiver.core.deadlines import is_over
from archiver.core.errors import ManifestError
from archiver.core.judging import as_known
from archiver.core.records import keys
from archiver.core.records.check_records import Check, Mark, tag_of
from archiver.core.records.commit import (
    DAMAGE_NAMED,
    DOUBTED,
    MANIFEST_GONE,
    UNREAD,
    clear_damage,
    copy_state,
    damaged_settlement,
    mark_damaged,
)
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import Verified, verify_in_full, verify_listed, verify_objects
from archiver.core.upkeep.reopening import reopen
from archiver.core.upkeep.scrub_plan import ScrubRules, Task, Urgency, after
from archiver.ledger.base import Schedule
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.models import OPEN_STATES, AssetState, CopyState, Row
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import ObjectCold, StorageError

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Tally:
    """Counts of one run at one destination."""

    stale_uploads: int = 0
    manifests: int = 0
    read_bytes: int = 0
    damaged: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of one verification. `read`: every byte was read and is right."""

    read_bytes: int
    problems: tuple[str, ...] = ()
    size_bytes: int = 0
    marks: int = 0
    read: bool = False
    manifest: Manifest | None = None


class CopyChecker:
    """`destinations`: all of them, for what the reason of a damaged asset says of its other copies."""

    def __init__(
        self,
        ledger: Schedule,
        destinations: Sequence[StorageBackend],
        clock: Callable[[], datetime],
        rules: ScrubRules,
        term_is_over: Callable[[Row], bool] = lambda _: False,
    ) -> None:
        self._term_is_over = term_is_over
        self._ledger = ledger
        self._destinations = list(destinations)
        self._clock = clock
        self._rules = rules

    def check(
        self, store: StorageBackend, task: Task, check: Check, tally: Tally, between: Callable[[], None]
    ) -> tuple[int, Check]:
        """Verify the copy, and report what is damaged. Returns the bytes read, and the new check. `between`: called
        before each read. Raises StorageError when the copy could not be verified, LedgerError."""
        between()
        before, ledger_away = None, None
        try:
            before = self._row(task.key)
        except LedgerUnavailable as error:  # it matters only if the copy is damaged
            ledger_away = error
        found = self._look(store, task.key, check.marks, between, in_full=task.in_full)
        read_bytes = found.read_bytes
        if found.problems and not check.marks & Mark.DAMAGED:
            # one bad answer is no damage: verify again
            found = self._look(store, task.key, check.marks, between, in_full=task.in_full)
            read_bytes += found.read_bytes
        if found.problems and before is not None and self._term_is_over(before):
            log.info("deleted_after_its_term", store=store.name, key=task.key)  # by a rule of the bucket
            found = replace(found, problems=())
        if found.problems:
            if ledger_away is not None:
                raise ledger_away
            tally.damaged += 1
            self._report(store, task.key, found, before)
            tags = [tag_of(info) for info in store.list(task.key) if info.key == task.key]
            check = replace(check, tag=tags[0]) if tags else check
        marks = found.marks | (Mark.DAMAGED if found.problems else 0)
        return read_bytes, after(
            check,
            self._rules,
            int(self._clock().timestamp()),
            size_bytes=found.size_bytes or check.size_bytes,
            marks=marks,
            read=found.read,
            in_full=task.in_full,
        )

    def mark(self, store: StorageBackend, key: ObjectKey, *, in_full: bool) -> bool:
        """Verify a copy again that was found damaged, and report it as the scrub does; return whether it is. One that
        has no manifest is left to the reconcile, which knows a mass deletion. `in_full`: read every byte. Raises as
        `check`."""
        if store.stat(key) is None:
            return False
        tally = Tally()
        self.check(store, Task(Urgency.AGAIN, 0, key, in_full), Check(0, 0), tally, lambda: None)
        return tally.damaged > 0

    def report(
        self, store: StorageBackend, key: ObjectKey, manifest: Manifest, problems: tuple[str, ...]
    ) -> None:
        """Mark a copy as damaged that the store itself found to differ from `manifest`, and reopen or settle its asset
        as the scrub does. Raises as `check`."""
        self._report(store, key, _Found(0, problems, manifest.total_size, manifest=manifest), self._row(key))

    def _look(
        self, store: StorageBackend, key: ObjectKey, known: int, between: Callable[[], None], *, in_full: bool
    ) -> _Found:
        try:
            manifest = read_manifest(store, key)
        except ManifestError as error:
            return _Found(0, (str(error),))
        except ObjectCold:
            return _Found(0, marks=Mark.COLD)  # it is there; what it names can be known once it is restored
        if manifest is None:
            return _Found(0, (MANIFEST_GONE,))
        in_full = in_full or bool(manifest.damage)
        try:
            verified, marks = self._verified(store, manifest, known, between, in_full=in_full)
        except ObjectCold as error:
            log.info("copy_is_cold", store=store.name, key=key, reason=str(error))
            verified, marks = verify_listed(store, manifest), Mark.COLD
        read = verified.ok and verified.read_bytes == manifest.total_size and not marks & Mark.COLD
        if read and in_full and manifest.damage:
            clear_damage(store, key, manifest)
        read = read and (in_full or verified.read_bytes > 0)
        return _Found(verified.read_bytes, verified.problems, manifest.total_size, marks, read, manifest)

    def _verified(
        self,
        store: StorageBackend,
        manifest: Manifest,
        known: int,
        between: Callable[[], None],
        *,
        in_full: bool,
    ) -> tuple[Verified, int]:
        if in_full:
            verified, marks = verify_in_full(store, manifest, between=between), known & Mark.SUMMED
        elif known & Mark.COLD:
            return verify_listed(store, manifest), Mark.COLD
        else:
            verified = verify_objects(store, manifest, between=between)
            marks = 0 if verified.read_bytes else Mark.SUMMED
        return verified, Mark.COLD if verified.cold else marks

    def _row(self, key: ObjectKey) -> Row | None:
        asset_id = keys.asset_id_of(key)
        return self._ledger.get(asset_id) if asset_id else None

    def _report(self, store: StorageBackend, key: ObjectKey, found: _Found, before: Row | None) -> None:
        """Mark the manifest as damaged and reopen the asset, or settle it as DAMAGED once its source has ended. No
        object is deleted. An asset that a worker has, or had since, and a manifest that was replaced are skipped: the
        copy may be whole by now. Of an asset that is due already, as after another of its copies, the manifest is
        marked all the same: by its sizes it would count as archived. Raises StorageError when it cannot be."""
        problems = found.problems
        log.error("archive_damaged", store=store.name, key=key, problems=problems[:5])
        row = self._row(key)
        if row is None or before is None or (row.state, row.changed_at) != (before.state, before.changed_at):
            return
        is_due = row.state in OPEN_STATES - {AssetState.RUNNING}
        if not is_due and row.state not in (AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.DAMAGED):
            return
        note = ""
        try:
            marked = found.manifest is not None and found.manifest.damage == problems[:DAMAGE_NAMED]
            if not marked and not mark_damaged(store, key, problems, of=found.manifest) and found.manifest:
                return
        except StorageError as error:  # by its sizes it would count as archived, and not be copied again
            if is_due:  # the next attempt reads back what the ledger calls damaged
                self._ledger.note_copies(row, {**row.copies, store.name: CopyState.DAMAGED})
                raise
            note = f"the manifest could not be marked ({error})"
        if not is_due and (note or is_over(row, self._clock())):
            is_trusted = found.manifest is not None and found.manifest.trusted
            copies = {
                each.name: problems if each is store else self._problems_at(each, key, row, is_trusted)
                for each in self._destinations
            }
            how = damaged_settlement(
                row.asset_id,
                copies,
                stored_bytes=row.stored_bytes,
                stored_objects=row.stored_objects,
                note=note,
            )
            self._ledger.record_archived(as_known(row), how)
        else:
            state = copy_state(problems)
            known = {store.name: state} if state is not None else {}
            if not is_due:
                reopen(self._ledger, row.asset_id, known)
            elif known and row.copies:
                self._ledger.note_copies(row, {**row.copies, **known})

    def _problems_at(
        self, store: StorageBackend, key: ObjectKey, row: Row, is_trusted: bool
    ) -> tuple[str, ...]:
        """Read another copy back: the damaged one may be restored from it. `is_trusted`: that one has no doubts, so
        that one with doubts is not what was archived."""
        try:
            manifest = read_manifest(store, key)
            if manifest is None:
                return (MANIFEST_GONE,)
            is_at_quorum = is_trusted or row.copies.get(store.name) is CopyState.DAMAGED
            if row.state is AssetState.ARCHIVED and not manifest.trusted and is_at_quorum:
                return (DOUBTED,)
            return verify_in_full(store, manifest).problems
        except ManifestError as error:
            return (str(error),)
        except StorageError as error:
            return (f"{UNREAD}: {error}",)
