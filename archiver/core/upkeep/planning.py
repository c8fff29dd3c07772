"""What a sweep would enter and the workers then archive, found without writing anything."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from archiver.core.forecast import Forecast, forecast
from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.upkeep import throughput
from archiver.core.upkeep.costs import Requests, requests_of
from archiver.hms.base import RecordingAssets
from archiver.hms.models import Asset, AssetType
from archiver.ledger.base import Assets, Facts
from archiver.ledger.models import JUDGED_STATES, OPEN_STATES, Amount, AssetState, Row, Seen
from storage_backends.base import ObjectKey, StorageBackend

NOTHING = Amount(0, 0)


class Ledger(Assets, Facts, Protocol):
    """What is read here."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes are the API's word; `Amount.unsized` counts assets of which it says none. `requests`: to each S3
    destination; assets of unknown size count as average ones, in `forecast` too."""

    listed: int
    to_archive: Amount
    new: int  # of `to_archive`: not in the ledger yet
    archived: int
    left_out: Mapping[str, Amount]  # by the reason that follows from the settings, or from 100ms
    left_alone: Mapping[AssetState, int]  # ended otherwise, by state: a sweep changes nothing about them
    requests: Requests
    average_bytes: int
    forecast: Forecast | None  # None: too little was measured, or nothing is to be archived

    @property
    def bytes_with_unsized(self) -> int:
        return self.to_archive.size_bytes + self.to_archive.unsized * self.average_bytes


def make_plan(
    *,
    api: RecordingAssets,
    ledger: Ledger,
    stores: Sequence[StorageBackend],
    scope: Scope,
    clock: Callable[[], datetime],
    part_bytes: int,
    listed: Callable[[int], None] = lambda _assets: None,
) -> Plan:
    """Walk the whole list of the API and judge each asset as a sweep would. `listed` is told how many were read.

    Writes nothing. An empty ledger is replaced by the manifests that every store has. Memory: the ids of all assets,
    and of an empty ledger the manifests' keys. One request for each 100 assets, one ledger call for each. Raises
    HmsError, LedgerError, StorageError."""
    now = clock()
    committed = None if ledger.counts().seen else _committed(stores)
    found = _Found()
    for asset in _each(api, listed):
        seen, row = judge(asset, scope, now), ledger.get(asset.id)
        if committed is not None and keys.manifest_key(asset.id, asset.created_at) in committed:
            found.archived += 1
        else:
            found.add(seen, row, scope)
    average = found.average_bytes
    due = {AssetState.DISCOVERED: found.deadlines}
    return Plan(
        listed=found.archived + found.others,
        to_archive=sum(found.deadlines.values(), NOTHING),
        new=found.new,
        archived=found.archived,
        left_out=dict(found.left_out),
        left_alone=dict(found.left_alone),
        requests=found.requests(part_bytes, average),
        average_bytes=average,
        forecast=forecast(now, throughput.left(due), throughput.history(ledger)) if found.deadlines else None,
    )


def _each(api: RecordingAssets, listed: Callable[[int], None]) -> Iterator[Asset]:
    """Each asset once: pages shift while new ones arrive."""
    known: set[str] = set()
    for page in api.pages():
        for asset in page.assets:
            if asset.id not in known:
                known.add(asset.id)
                yield asset
        listed(len(known))


def _committed(stores: Sequence[StorageBackend]) -> set[ObjectKey]:
    listed = [{info.key for info in store.list(keys.MANIFESTS)} for store in stores]
    return set.intersection(*listed) if listed else set()


class _Found:
    """Sums along the walk."""

    def __init__(self) -> None:
        self.archived = self.others = self.new = 0
        self.deadlines: dict[datetime, Amount] = {}
        self.left_out: dict[str, Amount] = {}
        self.left_alone: Counter[AssetState] = Counter()
        self._sizes: dict[tuple[int | None, bool], int] = defaultdict(int)  # size and form -> assets

    def add(self, seen: Seen, row: Row | None, scope: Scope) -> None:
        state = row.state if row is not None else None
        if row is not None and state is AssetState.ARCHIVED and not _is_resized(seen, row):
            self.archived += 1
            return
        self.others += 1
        size = row.size_bytes if row is not None and seen.size_bytes is None else seen.size_bytes
        amount = Amount(1, size or 0, 1 if size is None else 0)
        is_open = state in OPEN_STATES
        if (
            row is not None
            and not is_open
            and state not in JUDGED_STATES
            and state is not AssetState.ARCHIVED
        ):
            self.left_alone[row.state] += 1
        elif seen.verdict is AssetState.DISCOVERED or (is_open and seen.verdict is AssetState.SOURCE_FAILED):
            hour = seen.expires_at.replace(minute=0, second=0, microsecond=0)
            self.deadlines[hour] = self.deadlines.get(hour, NOTHING) + amount
            self.new += row is None
            self._sizes[size, seen.type == AssetType.ROOM_VOD] += 1
        else:
            why = _why(seen, scope)
            self.left_out[why] = self.left_out.get(why, NOTHING) + amount

    @property
    def average_bytes(self) -> int:
        amount = sum(self.deadlines.values(), NOTHING)
        sized = amount.assets - amount.unsized
        return amount.size_bytes // sized if sized else 0

    def requests(self, part_bytes: int, average_bytes: int) -> Requests:
        total = Requests()
        for (size, is_tree), assets in self._sizes.items():
            each = requests_of(average_bytes if size is None else size, part_bytes, is_tree=is_tree)
            total += each * assets
        return total


def _is_resized(seen: Seen, row: Row) -> bool:
    known = seen.size_bytes is not None and row.size_bytes is not None
    return seen.verdict is AssetState.DISCOVERED and known and seen.size_bytes != row.size_bytes


def _why(seen: Seen, scope: Scope) -> str:
    """Return why it is left out, for a table: without the room or path, of which there may be a million."""
    match seen.verdict:
        case AssetState.SKIPPED if scope.types is not None and seen.type not in scope.types:
            return f"type {seen.type!r} is not in ARCHIVER_TYPES"
        case AssetState.SKIPPED:
            return "the room is not in ARCHIVER_ROOMS"
        case AssetState.EXTERNAL:
            return "in the team's own bucket (ARCHIVER_OWN_PATHS)"
        case _:
            return "failed at 100ms"
