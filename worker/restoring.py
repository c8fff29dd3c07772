"""`archiver restore`: assets from the destinations to a folder, or to a BagIt bag in it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from archiver.core.records import keys
from archiver.core.restore import bag
from archiver.core.restore.folder import RestoreFolder
from archiver.core.restore.reading import BlockReader
from archiver.core.restore.restorer import LAYOUT, Restored, Restorer
from archiver.core.upkeep.copies import Away, Copies, Selection, find
from archiver.core.upkeep.phases import OnProgress
from archiver.core.upkeep.review import note_once
from archiver.ledger.base import Ledger
from archiver.ledger.models import Decision
from storage_backends.base import StorageBackend
from storage_backends.registry import open_destination, open_destinations

RESTORED = "restored"
ASSETS_AT_ONCE = 4
_MIB = 2**20


def sources(destinations: Sequence[str], wanted: str = "") -> list[StorageBackend]:
    """Open the destinations to restore from, the nearest first: directories, then in their order. `wanted`: only this
    one, by its name or URL, which need not be one of `destinations`. Raises BadDestinationUrl."""
    if not wanted:
        stores = open_destinations(destinations)
        return sorted(stores, key=lambda store: not store.name.startswith("file:"))
    for text in destinations:
        store = open_destination(text)
        if wanted in (text, store.name, text.partition("?")[0]):
            return [store]
        store.close()
    return [open_destination(wanted)]


def all_of(destinations: Sequence[str], stores: Sequence[StorageBackend]) -> list[StorageBackend]:
    """Return `stores`, and those of `destinations` that are not among them: their tombstones count too."""
    names = {store.name for store in stores}
    others = [open_destination(text) for text in destinations]
    return [*stores, *(store for store in others if store.name not in names)]


def holds(stores: Sequence[StorageBackend], folder: Path) -> str | None:
    """Return the name of the destination that `folder` is in; None when it is in none."""
    resolved = folder.resolve()
    for store in stores:
        if store.name.startswith("file://"):
            root = Path(store.name.removeprefix("file://")).resolve()
            if resolved == root or root in resolved.parents:
                return store.name
    return None


def restore(
    stores: Sequence[StorageBackend],
    selection: Selection,
    folder: Path,
    *,
    as_bag: bool,
    on_progress: OnProgress,
    away: Away,
    witnesses: Sequence[StorageBackend],
) -> Iterator[Restored]:
    """Yield each selected asset when it is restored. With `as_bag` the bag is complete when every asset is.
    `witnesses`: the destinations whose tombstones count. Raises RestoreError, StorageError when none answers."""
    chosen = [(each.asset_id, each.keys) for each in find(stores, selection, on_progress, away, witnesses)]

    def copies() -> Iterator[Copies]:
        for asset_id, manifests in chosen:
            yield Copies(asset_id, manifests, tuple(stores), tuple(witnesses))

    progress = _Progress(on_progress, len(chosen))
    with RestoreFolder(folder) as top, BlockReader() as reader:
        if not as_bag:
            restorer = Restorer(top, reader, begun=progress.begun, moved=progress.moved)
            yield from progress.counted(_several(restorer, copies()))
            return
        files: dict[str, tuple[int, str]] = {}
        whole = True
        with RestoreFolder(folder / bag.PAYLOAD) as payload:
            files.update(bag.begin_bag(top, payload, list(_folders(copies()))))
            restorer = Restorer(payload, reader, sha256=True, begun=progress.begun, moved=progress.moved)
            for result in progress.counted(_several(restorer, copies())):
                files.update(result.files)
                whole &= result.ok
                yield result
            if whole:
                payload.discard_partials()
        if whole and chosen:
            agent = f"archiver {version('recording-archiver')}"
            bag.finish_bag(top, files, agent=agent, now=datetime.now(UTC))


def _several(restorer: Restorer, chosen: Iterator[Copies]) -> Iterator[Restored]:
    """Restore ASSETS_AT_ONCE, and yield them in their order."""
    pool = ThreadPoolExecutor(ASSETS_AT_ONCE, thread_name_prefix="asset")
    waiting: deque[Future[Restored]] = deque()
    try:
        while True:
            while len(waiting) < 2 * ASSETS_AT_ONCE and (copies := next(chosen, None)) is not None:
                waiting.append(pool.submit(restorer.restore, copies))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        restorer.stop()
        pool.shutdown(cancel_futures=True)


def _folders(chosen: Iterator[Copies]) -> Iterator[str]:
    for copies in chosen:
        copy = copies.best()
        if copy is not None:
            yield keys.asset_folder(copy.asset, LAYOUT)


class _Progress:
    """Tells how much there is of the one asset, in MiB, or how many of several assets there are."""

    def __init__(self, on_progress: OnProgress, assets: int) -> None:
        self._tell = on_progress
        self._assets = assets
        self._lock = threading.Lock()
        self._size = self._restored = self._moved = 0

    def begun(self, size_bytes: int) -> None:
        self._size = size_bytes
        self.moved(0)

    def moved(self, size_bytes: int) -> None:
        with self._lock:
            self._moved += size_bytes
            if self._assets > 1:
                self._tell("restoring assets", self._restored, self._assets, size_bytes=self._moved)
            else:
                done, total = min(self._moved, self._size) // _MIB, -(-self._size // _MIB)
                self._tell("restoring, MiB", done, total, size_bytes=self._moved)

    def counted(self, results: Iterator[Restored]) -> Iterator[Restored]:
        for result in results:
            self._restored += 1
            self.moved(0)
            yield result


def note_restored(ledger: Ledger, restored: Sequence[Restored], *, by: str, folder: Path) -> None:
    """Add a line to the history of each asset. Raises LedgerError."""
    now = ledger.now()
    for result in restored:
        where = ", ".join(sorted(result.sources)) or "nowhere: all of it was there"
        decision = Decision(RESTORED, by, f"to {folder}, from {where}", now)
        row = ledger.get(result.asset_id)
        if row is not None:
            note_once(ledger, row, decision)
