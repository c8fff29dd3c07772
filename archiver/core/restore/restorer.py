"""Restore one asset after another to a folder: object by object, from the nearest copy that has it whole."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import structlog

from archiver.core.errors import FileRefused, FolderFull, RestoreError
from archiver.core.records import keys
from archiver.core.records.manifest import Manifest, ManifestObject
from archiver.core.restore.folder import Partial, RestoreFolder
from archiver.core.restore.reading import BlockReader
from archiver.core.upkeep.copies import Cold, Copies, Copy
from archiver.transfer.checksums import Crc32c
from storage_backends.base import StorageBackend
from storage_backends.errors import (
    DestinationRefuses,
    ObjectCold,
    ObjectMissing,
    StorageError,
    TransientStorageError,
)

log = structlog.get_logger(__name__)

LAYOUT = "{room_id}/{session_id}/{type}/{asset_id}"
MANIFEST = "manifest.json"
SMALL_AT_ONCE = 8
"""Objects of one block that are restored at the same time."""
AWAY_AFTER = 3
"""Failures in a row after which a destination is asked only for what no other has."""

Count = Callable[[int], None]


def _not_counted(_size_bytes: int) -> None:
    """Nobody watches."""


class Stopped(RestoreError):
    """`Restorer.stop` was called."""


class _WrongBytes(Exception):
    """What a destination has is not what the manifest lists."""


@dataclass(slots=True)
class Restored:
    """One asset. `folder`: relative to the root. `read_bytes`: from the destinations; `kept`: objects that were there
    already. `sources`: objects by the destination they came from. `problems`: why something is not there; `notes`: what
    a person should know of what is. `cold`: objects to thaw. `files`: size and SHA-256 of each by its path, if asked
    for. `opens`: what to open, the playlist or the largest file."""

    asset_id: str
    folder: str = ""
    objects: int = 0
    size_bytes: int = 0
    read_bytes: int = 0
    kept: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cold: list[Cold] = field(default_factory=list)
    unreachable: bool = False  # a destination that did not answer may have what is missing
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    opens: str | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    def add(self, done: _Done) -> None:
        self.kept += done.kept
        self.read_bytes += done.read_bytes
        if done.source is not None:
            self.sources[done.source] = self.sources.get(done.source, 0) + 1
        if done.problem is not None:
            self.problems.append(done.problem)
            self.cold += done.cold
            self.unreachable |= done.unreachable
        if done.file is not None:
            self.files[done.path] = done.file


class Restorer:
    """`sha256`: compute it of every file, while its bytes pass. `begun`: called with the size of each asset; `moved`:
    with that of each block, restored or found there, from any thread."""

    def __init__(
        self,
        folder: RestoreFolder,
        reader: BlockReader,
        *,
        sha256: bool = False,
        begun: Count = _not_counted,
        moved: Count = _not_counted,
    ) -> None:
        self._folder = folder
        self._reader = reader
        self._sha256 = sha256
        self._begun = begun
        self._moved = moved
        self._lock = threading.Lock()
        self._large = threading.Lock()  # one large object at a time, to bound the memory
        self._stopped = threading.Event()
        self._failures: dict[str, int] = {}  # in a row, by destination

    def restore(self, copies: Copies) -> Restored:
        """Restore one asset; several may be restored at once. What is there and whole is kept; another file in its
        place is replaced. The manifest is written last, as `manifest.json`. Idempotent.

        What no destination has whole is a problem of the result. Raises FolderFull, FolderUnusable; Stopped after
        `stop`."""
        copy = copies.best()
        if copy is None:
            return _without_manifest(copies)
        result = self._restore_from(copies, copy)
        for other in copies if not result.ok else ():
            if _content(other.manifest) == _content(copy.manifest) or other.manifest.damage:
                continue
            found = self._restore_from(copies, other)  # another version of the asset, whole
            if found.ok:
                kept = {item.path for item in other.manifest.objects}
                for item in copy.manifest.objects:
                    if item.path not in kept:
                        self._folder.remove(f"{result.folder}/{item.path}")
                found.notes.append(
                    f"{copy.store.name} lists another version, which is not whole: {result.problems[0]}"
                )
                return found
        return result

    def stop(self) -> None:
        """Let what runs in other threads end at its next block; what is there stays, for the next run."""
        self._stopped.set()

    def _restore_from(self, copies: Copies, copy: Copy) -> Restored:
        manifest = copy.manifest
        asset = _Asset(copies, copy, keys.asset_folder(copy.asset, LAYOUT))
        result = Restored(
            copies.asset_id, asset.folder, len(manifest.objects), manifest.total_size, notes=_notes(copy)
        )
        self._begun(manifest.total_size)
        self._require_space(asset)
        small = [item for item in manifest.objects if item.size <= self._reader.block_bytes]
        large = [item for item in manifest.objects if item.size > self._reader.block_bytes]
        pool = ThreadPoolExecutor(SMALL_AT_ONCE, thread_name_prefix="restore")
        try:
            for done in pool.map(partial(self._restore_one, asset), small):
                result.add(done)
            for item in large:
                with self._large:
                    result.add(self._restore_one(asset, item))
        finally:
            pool.shutdown(cancel_futures=True)
            self._folder.forget()
        if result.ok:
            self._write_manifest(result, manifest)
            first = opens(manifest)
            result.opens = f"{asset.folder}/{first}" if first is not None else None
        return result

    def _require_space(self, asset: _Asset) -> None:
        """Raise FolderFull before the work when it cannot succeed, as far as the file system tells."""
        free, manifest = self._folder.free_bytes(), asset.copy.manifest
        if free > manifest.total_size:
            return
        needed = sum(
            item.size for item in manifest.objects if self._folder.size_of(asset.path(item)) != item.size
        )
        if needed > free:
            raise FolderFull(
                f"{self._folder.root} has {free / 2**20:,.1f} MiB left, and {manifest.asset_id} needs "
                f"{needed / 2**20:,.1f} MiB. What is there stays: make room, then run the same command again, and it "
                "resumes"
            )

    def _write_manifest(self, result: Restored, manifest: Manifest) -> None:
        """Write it beside the objects, unless one of them has that name, as an earlier version stored it."""
        path = f"{result.folder}/{MANIFEST}"
        if any(item.path.casefold() == MANIFEST for item in manifest.objects):
            return
        data = manifest.to_bytes()
        if b"".join(self._folder.read(path)) != data:
            self._folder.write(path, data)
        if self._sha256:
            result.files[path] = (len(data), hashlib.sha256(data).hexdigest())

    # -- one object ------------------------------------------------------------------------------------------
    def _restore_one(self, asset: _Asset, item: ManifestObject) -> _Done:
        done = _Done(asset.path(item))
        self._require_going()
        try:
            if not self._is_there(done, item):
                self._fetch(asset, item, done)
        except FileRefused as error:
            done.problem = str(error)
        return done

    def _require_going(self) -> None:
        if self._stopped.is_set():
            raise Stopped("the restore was stopped")

    def _is_there(self, done: _Done, item: ManifestObject) -> bool:
        if self._folder.size_of(done.path) != item.size:
            return False
        seen = _Seen(self._sha256)
        for block in self._folder.read(done.path):
            seen.update(block)
        if not seen.equals(item):
            return False
        self._moved(item.size)
        done.kept, done.file = True, seen.file
        return True

    def _fetch(self, asset: _Asset, item: ManifestObject, done: _Done) -> None:
        reasons: list[str] = []
        for copy in self._sources(asset, item):
            away, event = False, "copy_unreadable"
            try:
                with self._folder.partial(done.path) as unfinished:
                    self._copy(copy, item, unfinished, done)
            except ObjectCold:
                event = "copy_is_cold"
                done.cold.append(Cold(copy.store, copy.manifest.key_of(item), item.size))
                reasons.append(f"{copy.store.name} has it in a storage class that must be restored first")
            except StorageError as error:
                away = isinstance(error, DestinationRefuses | TransientStorageError)
                reasons.append(str(error))
            except _WrongBytes as error:
                event = "copy_not_whole"
                reasons.append(f"{copy.store.name}: {error}")
            else:
                done.source = copy.store.name
            self._count(copy.store, away)
            done.unreachable |= away
            if done.source:
                done.cold.clear()
                return
            log.warning(event, asset_id=asset.copies.asset_id, path=item.path, reason=reasons[-1])
        done.problem = f"{item.path}: {'; '.join(reasons)}"

    def _copy(self, copy: Copy, item: ManifestObject, unfinished: Partial, done: _Done) -> None:
        """Append what is missing to the unfinished file, and publish it if it is whole. Raises _WrongBytes,
        StorageError."""
        seen = _Seen(self._sha256)
        if unfinished.size_bytes <= item.size:
            for block in unfinished.read():
                seen.update(block)
        else:
            unfinished.discard()
        resumed = seen.size_bytes
        self._moved(resumed)
        try:
            for block in self._reader.blocks(copy.store, copy.manifest.key_of(item), resumed, item.size):
                self._require_going()
                seen.update(block)
                if seen.size_bytes > item.size:
                    break
                unfinished.write(block)
                done.read_bytes += len(block)
                self._moved(len(block))
        except ObjectMissing:
            raise _WrongBytes(f"{item.path} is missing") from None
        if seen.equals(item):
            unfinished.publish()
            done.file = seen.file
            return
        unfinished.discard()
        if not resumed:
            raise _WrongBytes(seen.difference(item))
        self._copy(copy, item, unfinished, done)  # perhaps what an earlier run left was wrong

    def _sources(self, asset: _Asset, item: ManifestObject) -> Iterator[Copy]:
        """Yield the copies that list these bytes: the chosen one first, destinations that keep failing last."""
        later: list[Copy] = []
        for copy in asset.copies_of(item):
            if self._failures.get(copy.store.name, 0) >= AWAY_AFTER:
                later.append(copy)
            else:
                yield copy
        yield from later

    def _count(self, store: StorageBackend, away: bool) -> None:
        with self._lock:
            self._failures[store.name] = self._failures.get(store.name, 0) + 1 if away else 0


@dataclass(slots=True)
class _Done:
    """One object. `file`: size and SHA-256, if that is asked for."""

    path: str
    source: str | None = None
    kept: bool = False
    read_bytes: int = 0
    problem: str | None = None
    unreachable: bool = False
    cold: list[Cold] = field(default_factory=list)
    file: tuple[int, str] | None = None


class _Asset:
    """The copies of one asset, shared by the threads that restore it."""

    def __init__(self, copies: Copies, copy: Copy, folder: str) -> None:
        self.copies = copies
        self.copy = copy
        self.folder = folder
        self._lock = threading.Lock()
        self._listed: list[tuple[Copy, dict[str, ManifestObject]]] | None = None  # of the other copies

    def path(self, item: ManifestObject) -> str:
        return f"{self.folder}/{item.path}"

    def copies_of(self, item: ManifestObject) -> Iterator[Copy]:
        """Yield the copies that list the same bytes at this path; those after the first are read when needed."""
        yield self.copy
        with self._lock:
            if self._listed is None:
                self._listed = [
                    (copy, {each.path: each for each in copy.manifest.objects})
                    for copy in self.copies
                    if copy is not self.copy
                ]
        for copy, listed in self._listed:
            other = listed.get(item.path)
            if other is not None and (other.size, other.crc32c) == (item.size, item.crc32c):
                yield copy


class _Seen:
    """Size and checksums of the bytes so far."""

    def __init__(self, sha256: bool) -> None:
        self.size_bytes = 0
        self._crc = Crc32c()
        self._sha256 = hashlib.sha256() if sha256 else None

    def update(self, data: bytes) -> None:
        self.size_bytes += len(data)
        self._crc.update(data)
        if self._sha256 is not None:
            self._sha256.update(data)

    def equals(self, item: ManifestObject) -> bool:
        return (self.size_bytes, self._crc.value) == (item.size, item.crc)

    def difference(self, item: ManifestObject) -> str:
        if self.size_bytes != item.size:
            more = "more than " if self.size_bytes > item.size else ""
            found = item.size if more else self.size_bytes
            return f"{item.path} has {more}{found:,} bytes, the manifest says {item.size:,}"
        return f"{item.path} has CRC32C {self._crc.value:08x}, the manifest says {item.crc32c}"

    @property
    def file(self) -> tuple[int, str] | None:
        return (self.size_bytes, self._sha256.hexdigest()) if self._sha256 is not None else None


def _without_manifest(copies: Copies) -> Restored:
    problems = list(copies.problems) or ["no destination has a manifest of it"]
    return Restored(
        copies.asset_id, problems=problems, cold=list(copies.cold), unreachable=bool(copies.errors)
    )


def _content(manifest: Manifest) -> set[tuple[str, int, str]]:
    return {(item.path, item.size, item.crc32c) for item in manifest.objects}


def _notes(copy: Copy) -> list[str]:
    manifest, where = copy.manifest, copy.store.name
    notes = []
    if manifest.damage:
        notes.append(f"the copy at {where} was found damaged: {manifest.damage[0]}")
    if manifest.doubts:
        notes.append(f"it is stored with doubts: {manifest.doubts[0]}")
    if manifest.missing:
        notes.append(f"{len(manifest.missing):,} objects were never there: {manifest.missing[0]}")
    return notes


def opens(manifest: Manifest) -> str | None:
    """Return the path of the object that a person would open: the playlist at the top, else the largest object."""
    playlists = [item.path for item in manifest.objects if item.path.lower().endswith((".m3u8", ".m3u"))]
    if playlists:
        return min(playlists, key=lambda path: (path.count("/"), "master" not in path, path))
    largest = max(manifest.objects, key=lambda item: item.size, default=None)
    return largest.path if largest is not None else None
