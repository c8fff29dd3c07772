"""The report of `archiver verify --report`: every asset of a period, for an auditor."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from archiver.core.records import keys, statements
from archiver.core.records.check_records import Checks, read_records
from archiver.core.records.drill_records import DrillRecord, read_drills
from archiver.hms.models import parse_time
from archiver.ledger.models import OPEN_STATES, AssetState, Row
from storage_backends.base import ObjectKey, StorageBackend
from storage_backends.errors import StorageError
from worker.verify import Checked

T = TypeVar("T")

SCHEMA = "archiver.report/1"
NOT_IN_THE_LEDGER = "not in the ledger"
_NOTHING_TO_DO = frozenset(
    {
        AssetState.SKIPPED,
        AssetState.EXTERNAL,
        AssetState.SOURCE_FAILED,
        AssetState.REJECTED,
        AssetState.ERASED,
        AssetState.EXPIRED,
    }
)
"""Ends with nothing to be kept: what they are is reported, and is no problem."""


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` to before `until`, by when an asset was created, or first seen where that is not known."""

    since: datetime | None
    until: datetime | None

    def holds(self, moment: datetime) -> bool:
        return (self.since is None or moment >= self.since) and (self.until is None or moment < self.until)

    def may_hold(self, key: ObjectKey) -> bool:
        """Whether a manifest may be of an asset of the period: its key has the day; an undated one may."""
        day = keys.created_on(key)
        if day is None:
            return True
        return (self.since is None or day + timedelta(days=1) > self.since) and (
            self.until is None or day < self.until
        )


@dataclass(frozen=True, slots=True)
class Copy:
    """One asset at one destination. `result`: `whole`, `whole, with doubts`, `damaged`, `missing` or `not checked`."""

    destination: str
    result: str
    why: str | None = None
    manifest: str | None = None
    manifest_sha256: str | None = None
    objects: int = 0
    size_bytes: int = 0
    last_full_read: datetime | None = None
    last_drill: datetime | None = None
    drill_result: str | None = None


@dataclass(slots=True)
class Line:
    asset_id: str
    type: str
    state: str
    created_at: datetime | None = None
    reason: str | None = None
    acknowledged: bool = False
    copies: list[Copy] = field(default_factory=list)

    def problem(self, destinations: int) -> str | None:
        """Return what is wrong with it; None when it is saved, or has an end that leaves nothing to save."""
        bad = [copy for copy in self.copies if copy.result != "whole"]
        if self.state == AssetState.ARCHIVED:
            if bad:
                return f"{bad[0].result} at {bad[0].destination}"
            return None if len(self.copies) == destinations else "not checked at every destination"
        if self.state in _NOTHING_TO_DO or self.acknowledged:
            return None
        if self.state in OPEN_STATES:
            return "not archived yet"
        return str(self.state)


@dataclass(slots=True)
class Report:
    period: Period
    made_at: datetime
    version: str
    destinations: Sequence[str]
    quick: bool
    unknown: list[str]  # why it is not complete; empty: compared with the ledger and every destination
    lines: list[Line] = field(default_factory=list)

    @property
    def problems(self) -> list[tuple[Line, str]]:
        found = ((line, line.problem(len(self.destinations))) for line in self.lines)
        return [(line, what) for line, what in found if what is not None]

    @property
    def states(self) -> Mapping[str, int]:
        return Counter(str(line.state) for line in self.lines)

    @property
    def ok(self) -> bool:
        return not self.unknown and not self.problems

    def as_json(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "made_at": self.made_at,
            "archiver_version": self.version,
            "since": self.period.since,
            "until": self.period.until,
            "destinations": list(self.destinations),
            "checked": "names and sizes" if self.quick else "every byte",
            "ok": self.ok,
            "not_complete_because": self.unknown,
            "states": dict(self.states),
            "problems": [{"asset_id": line.asset_id, "problem": what} for line, what in self.problems],
            "assets": [asdict(line) for line in self.lines],
        }


def rows_of(rows: Iterable[Row], period: Period) -> dict[str, Row]:
    """The assets that the API showed of the period, by id. About 1 kB each."""
    return {row.asset_id: row for row in rows if period.holds(row.created_at or row.first_seen_at)}


def not_seen(
    period: Period, last_sweep: Mapping[str, object] | None, now: datetime, late: timedelta
) -> Iterator[str]:
    """Yield why it is not known what 100ms showed of the period. `late`: a sweep that is so old is the latest still."""
    began = parse_time((last_sweep or {}).get("started_at"))
    if last_sweep is None or began is None:
        yield "no sweep has ended since the ledger was made, so what 100ms has is not known: `archiver sweep`"
        return
    end = now - late if period.until is None else min(period.until, now - late)
    if began < end:
        yield f"the last sweep began at {began:%Y-%m-%d %H:%M} UTC, and what 100ms had later is not known"
    if nameless := last_sweep.get("garbled"):
        yield f"100ms lists assets without a usable id: {nameless}"


def stored_in(
    destinations: Sequence[StorageBackend], period: Period, known: Iterable[Row], unknown: list[str]
) -> set[str]:
    """Return the ids of the assets that have a manifest of the period anywhere. Adds to `unknown` what could not be
    listed."""
    hashed = {
        key: row.asset_id
        for row in known
        if keys.asset_id_of(key := keys.manifest_key(row.asset_id, row.created_at)) is None
    }
    found = set()
    for store in destinations:
        try:
            for info in store.list(keys.MANIFESTS):
                if info.key.endswith(".json") and period.may_hold(info.key):
                    found.add(keys.asset_id_of(info.key) or hashed.get(info.key) or info.key)
        except StorageError as error:
            unknown.append(f"{store.name} could not be listed: {error}")
    return found


class Reporter:
    """Makes the lines of a report out of what was checked."""

    def __init__(self, destinations: Sequence[StorageBackend], now: datetime, *, quick: bool) -> None:
        self._stores = {store.name: store for store in destinations}
        self._now = now
        self._quick = quick
        self._checks = self._each(lambda store: read_records(store, now).checks, Checks)
        self._drills = self._each(lambda store: read_drills(store, now), DrillRecord)

    def copy(self, checked: Checked) -> Copy:
        why = "; ".join(checked.problems or checked.doubts) or checked.unchecked
        if checked.key is None:
            return Copy(checked.destination, "missing" if checked.problems else "not checked", why)
        check = self._checks[checked.destination].get(checked.key)
        drill = self._drills[checked.destination].drilled.get(checked.key)
        read_now = not self._quick and not checked.cold and not checked.problems and checked.unchecked is None
        return Copy(
            checked.destination,
            _result(checked),
            why,
            checked.key,
            self._digest(checked),
            checked.objects,
            checked.size_bytes,
            self._now if read_now else _time(check.read_at) if check is not None else None,
            _time(drill.at) if drill is not None else None,
            drill.result if drill is not None else None,
        )

    def _digest(self, checked: Checked) -> str | None:
        assert checked.key is not None
        try:
            data = statements.read_whole(self._stores[checked.destination], checked.key)
        except StorageError:
            return None
        return None if data is None else hashlib.sha256(data).hexdigest()

    def _each(self, read: Callable[[StorageBackend], T], nothing: Callable[[], T]) -> dict[str, T]:
        found = {}
        for name, store in self._stores.items():
            try:
                found[name] = read(store)
            except StorageError:  # that it cannot be read, the check of its copies says
                found[name] = nothing()
        return found


def _result(checked: Checked) -> str:
    if checked.problems:
        return "damaged"
    if checked.unchecked is not None:
        return "not checked"
    return "whole, with doubts" if checked.doubts else "whole"


def lines_of(rows: Mapping[str, Row], copies: Mapping[str, list[Copy]]) -> list[Line]:
    """One for each asset of the ledger or of a destination, the oldest first."""
    lines = [
        Line(
            row.asset_id,
            row.type,
            str(row.state),
            row.created_at,
            row.reason,
            row.acknowledged is not None,
            copies.get(row.asset_id, []),
        )
        for row in rows.values()
    ]
    lines += [
        Line(asset_id, "unknown", NOT_IN_THE_LEDGER, copies=found)
        for asset_id, found in copies.items()
        if asset_id not in rows
    ]
    return sorted(
        lines, key=lambda line: (line.created_at or datetime.min.replace(tzinfo=UTC), line.asset_id)
    )


def _time(seconds: int) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
