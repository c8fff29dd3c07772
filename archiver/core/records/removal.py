"""Remove objects for good at one destination, older versions included, and say what is left."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

import structlog

from archiver.core.records import check_records, keys
from archiver.core.records.listing_together import ALONE, Owners, Together
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectKey, ObjectSpec, StorageBackend
from storage_backends.errors import AccessDenied, DestinationRefuses, UploadGone
from storage_backends.optional import NotDeleted, ObjectVersion

log = structlog.get_logger(__name__)

AT_ONCE = 1000
"""Versions deleted with one call: what S3 takes."""
NAMED = 3
_UNVERSIONED = ("", "null")
"""Ids of versions at a store that keeps none."""
_AHEAD = timedelta(days=-1)
"""Uploads begun by a clock that is ahead are open, too."""


@dataclass(slots=True)
class Left:
    """What is left at one destination. `visible`: what a LIST shows; `hidden`: older versions, marks of deletions, and
    what the store itself removes later. `notes`: why, a sentence each. `until`: the latest date before which nothing
    more can be removed; None where none is known, or something is left for another reason."""

    visible: int = 0
    hidden: int = 0
    keys: list[ObjectKey] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    until: datetime | None = None
    undated: bool = False

    def __bool__(self) -> bool:
        return bool(self.visible or self.hidden or self.undated)

    @property
    def waits_until(self) -> datetime | None:
        return None if self.undated else self.until

    def say(self, store: StorageBackend) -> str:
        """Return one sentence for a person."""
        found = []
        if self.visible:
            found.append(f"{self.visible:,} objects")
        if self.hidden:
            found.append(f"{self.hidden:,} older versions or soft-deleted objects")
        what = " and ".join(found) or "perhaps something"
        named = f" ({', '.join(self.keys)}{', ...' if self.visible + self.hidden > len(self.keys) else ''})"
        why = "; ".join(self.notes) or "deletes were answered with success, and they are still listed"
        return f"{what} left at {store.name}{named if self.keys else ''}: {why}"

    def count(self, version: ObjectVersion) -> None:
        if version.is_current:
            self.visible += 1
        else:
            self.hidden += 1
        if len(self.keys) < NAMED and version.key not in self.keys:
            self.keys.append(version.key)

    def explain(self, reason: str, until: datetime | None) -> None:
        if len(self.notes) < NAMED:
            self.notes[reason] = None
        if until is None:
            self.undated = True
        else:
            self.until = max(self.until or until, until)

    def add(self, other: Left) -> None:
        """Add what another list has found."""
        self.visible += other.visible
        self.hidden += other.hidden
        self.keys += [key for key in other.keys if key not in self.keys][: NAMED - len(self.keys)]
        self.notes.update(other.notes)
        if other.until is not None:
            self.until = max(self.until or other.until, other.until)
        self.undated |= other.undated


@dataclass(frozen=True, slots=True)
class Targets:
    """What is to be removed of one asset: everything below `folders`, and `objects`."""

    folders: Sequence[ObjectKey]
    objects: Sequence[ObjectKey]


def remove(store: StorageBackend, targets: Targets) -> Left:
    """Remove `targets` with all their versions, as far as the store allows; return why something is left, without
    counting it: `what_is_left` does. Idempotent. Memory: AT_ONCE keys. Raises StorageError when it cannot be tried."""
    return remove_all(store, [targets], ALONE)[0]


def remove_all(store: StorageBackend, many: Sequence[Targets], together: Together) -> list[Left]:
    """As `remove`, for several assets, with the fewer requests the closer they lie together. After a StorageError try
    each with ALONE: one that fails keeps the others from being removed."""
    whys, common = [Left() for _ in many], Left()

    def remove_within(prefix: str, group: Collection[str], beside: int | None) -> None:
        number, first = AT_ONCE, None
        while number >= AT_ONCE:  # some servers lose their place in a list while its objects are deleted
            before, (number, first) = first, remove_once(prefix, group, beside)
            if first == before:
                break  # refused, or kept although it says that it was deleted

    def remove_once(
        prefix: str, group: Collection[str], beside: int | None
    ) -> tuple[int, ObjectVersion | None]:
        """Return how many versions were found, and the first."""
        number, first = 0, None
        found = owners.wanted(_versions(store, prefix, common), group, beside)
        chosen = ((version, whose) for version, whose in found if version.gone_at is None)
        while batch := list(islice(chosen, AT_ONCE)):
            number, first = number + len(batch), first or batch[0][0]
            by_key = {version.key: whose for version, whose in batch}
            for refused in _delete(store, [version for version, _ in batch]):
                for owner in by_key[refused.version.key]:
                    whys[owner].explain(_because(refused), refused.locked_until)
        return number, first

    for owners in _wanted(many):
        for _ in together.listed(owners.prefixes(), remove_within):
            pass
    for why in whys:
        why.add(common)
    folders: Callable[[str], None] | None = getattr(store, "remove_empty_folders", None)
    if folders is not None:
        for folder in dict.fromkeys(folder for targets in many for folder in targets.folders):
            folders(folder)
    return whys


def _wanted(many: Sequence[Targets]) -> Iterator[Owners]:
    """Objects first: without its manifest nobody takes what is left of a copy for a damaged one."""
    yield Owners(targets.objects for targets in many)
    yield _folders(many)


def _folders(many: Sequence[Targets]) -> Owners:
    return Owners([f"{folder}/" for folder in targets.folders] for targets in many)


def walk_all(
    store: StorageBackend,
    many: Sequence[Targets],
    together: Together,
    each: Callable[[int, ObjectKey, ObjectKey], None],
) -> None:
    """Call `each` with the number of the targets, the folder and the key of every object in their folders; perhaps more
    than once. Raises StorageError."""
    owners = _folders(many)

    def walk(prefix: str, group: Collection[str], beside: int | None) -> None:
        for info, whose in owners.wanted(store.list(prefix), group, beside):
            for owner in whose:
                for folder in many[owner].folders:
                    if info.key.startswith(f"{folder}/"):
                        each(owner, folder, info.key)

    for _ in together.listed(owners.prefixes(), walk):
        pass


def what_is_left(store: StorageBackend, targets: Targets, why: Left) -> Left:
    """List `targets` again, since a destination may answer that it deleted and have kept. `why`: what `remove`
    returned. Empty when nothing is there. Raises StorageError."""
    return all_left(store, [targets], [why], ALONE)[0]


def all_left(
    store: StorageBackend, many: Sequence[Targets], whys: Sequence[Left], together: Together
) -> list[Left]:
    """As `what_is_left`, for several assets. After a StorageError try each with ALONE."""
    every, common = [Left() for _ in many], Left()

    def look_within(prefix: str, group: Collection[str], beside: int | None) -> dict[int, Left]:
        found: dict[int, Left] = {}
        for version, whose in owners.wanted(_versions(store, prefix, common), group, beside):
            for owner in whose:
                left = found.setdefault(owner, Left())
                left.count(version)
                if version.gone_at is not None:
                    left.explain(
                        f"the store keeps deleted objects until {_day(version.gone_at)}", version.gone_at
                    )
        return found

    for owners in _wanted(many):
        for found in together.listed(owners.prefixes(), look_within):
            for owner, left in found.items():
                every[owner].add(left)
    for left, why in zip(every, whys, strict=True):
        left.add(common)
        if left:
            for note in why.notes:
                left.notes[note] = None
            if why.until is not None:
                left.until = max(left.until or why.until, why.until)
            left.undated = left.undated or why.undated or left.until is None
    return every


def abort_uploads(store: StorageBackend, folders: Collection[ObjectKey]) -> None:
    """Abort the unfinished uploads below `folders`, where the store tells their keys. Raises StorageError."""
    abort: Callable[[timedelta, Callable[[str], bool]], int] | None = getattr(store, "abort_uploads", None)
    if abort is None or not folders:
        return
    known = frozenset(folders)

    def is_ours(key: str) -> bool:
        parts = key.split("/")
        return any("/".join(parts[:number]) in known for number in range(1, len(parts)))

    try:
        abort(_AHEAD, is_ours)
    except UploadGone:
        return  # a server that cannot list them (rclone)


def forget_rows(store: StorageBackend, manifests: Collection[ObjectKey]) -> None:
    """Remove what the catalogue and the check records say of these assets. Idempotent. Memory: one table, compressed.
    Raises StorageError."""
    wanted = frozenset(manifests)
    for month in sorted({month for each in wanted if (month := keys.month_of(each)) is not None}):
        _rewrite(store, keys.catalogue_key(month), lambda data: _without_rows(data, wanted))
    for info in list(store.list(keys.CHECKS)):
        if keys.is_check_record(info.key):
            _rewrite(store, info.key, lambda data: check_records.without(data, wanted))


def _rewrite(store: StorageBackend, key: ObjectKey, change: Callable[[bytes], bytes | None]) -> None:
    """Replace an object by what `change` makes of it, and remove its older versions. What cannot be read stays: who
    writes it makes it again."""
    info = store.stat(key)
    if info is None:
        return
    try:
        changed = change(store.read(key, 0, info.size_bytes))
    except (ValueError, EOFError, OSError, zlib.error):
        return
    if changed is None:
        return
    store.put(ObjectSpec(key, "application/gzip", len(changed)), changed, crc32c(changed))
    remove_older(store, key)


def keeps_versions(store: StorageBackend, key: ObjectKey) -> bool:
    """Return whether `store` keeps versions, by those of an object that is there. One LIST. Raises StorageError."""
    return any(each.id not in _UNVERSIONED for each in _versions(store, key, Left()) if each.key == key)


def remove_older(store: StorageBackend, key: ObjectKey) -> None:
    """Remove the older versions of an object, as far as the store allows. Idempotent. Raises StorageError."""
    older = [each for each in _versions(store, key, Left()) if each.key == key and not each.is_current]
    for refused in _delete(store, older):
        log.warning("older_version_left", store=store.name, key=key, reason=_because(refused))


def _without_rows(data: bytes, manifests: Collection[str]) -> bytes | None:
    """Return a catalogue without the rows of `manifests`; None when it has none of them."""
    packed, dropped = io.BytesIO(), False
    with (
        gzip.GzipFile(fileobj=io.BytesIO(data)) as raw,
        io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="") as text,
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as raw_out,
        io.TextIOWrapper(raw_out, encoding="utf-8", errors="surrogateescape", newline="") as text_out,
    ):
        writer = csv.writer(text_out, lineterminator="\n")
        for row in csv.reader(text):
            if row and row[-1] in manifests:
                dropped = True
            else:
                writer.writerow(row)
    return packed.getvalue() if dropped else None


def _versions(store: StorageBackend, prefix: str, unknown: Left) -> Iterator[ObjectVersion]:
    """List versions where the store has them and tells them, else what is visible; `unknown` is told of the rest."""
    versions: Callable[[str], Iterator[ObjectVersion]] | None = getattr(store, "versions", None)
    if versions is not None:
        try:
            yield from versions(prefix)
            return
        except AccessDenied as error:
            unknown.explain(
                f"older versions may be kept, and our credentials may not list them ({error})", None
            )
    for info in store.list(prefix):
        yield ObjectVersion(info.key, "", True)


def _delete(store: StorageBackend, versions: Sequence[ObjectVersion]) -> Iterable[NotDeleted]:
    together: Callable[[Sequence[ObjectVersion]], Sequence[NotDeleted]] | None = getattr(
        store, "delete_versions", None
    )
    named = [version for version in versions if version.id]
    if together is not None and named:
        yield from together(named)
    for version in versions:
        if not version.id:
            try:
                store.delete(version.key)
            except DestinationRefuses as error:
                yield NotDeleted(version, str(error))


def _because(refused: NotDeleted) -> str:
    if refused.locked_until is not None:
        return f"a lock lasts until {_day(refused.locked_until)}"
    return refused.reason


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
