"""Knows the true bytes, and looks at every change: what the fleet says is held against what is really there."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from operator import is_
from typing import Any

from archiver.core.attempt.changed_meanwhile import LOOK_AFTER
from archiver.core.attempt.decisions import LOST_AFTER
from archiver.core.deadlines import is_over
from archiver.core.destinations.breaker import destination_of
from archiver.core.health import Summary
from archiver.core.records.keys import ENDS, is_tombstone, tombstone_key
from archiver.core.upkeep.retrying import ASKED_AGAIN
from archiver.ledger.models import OPEN_STATES, REMOVED_STATES, AssetState, Lease, Row
from archiver.transfer.checksums import crc32c
from storage_backends.memory import StoredObject
from tests.simulation.copies import MENDED_WITHIN, CopiesOracle
from tests.simulation.expiry import ExpiryOracle
from tests.simulation.faults import Faults, longest_clear
from tests.simulation.ledgers import AuditedLedger
from tests.simulation.scheduler import DAY, HOUR, MINUTE, START, Process, Scheduler
from tests.simulation.stores import FOREIGN, MANIFESTS, Destination
from tests.simulation.truth import TrueAsset
from tests.simulation.wiring import AT_RISK, SWEEP_EVERY, Logs

_NEVER = float("-inf")
NO_VERSION = "what is stored is no version that the source ever had"
COMPARED_AFTER = LOOK_AFTER.total_seconds() + 1.0
RE_READ_WITHIN = 31 * DAY
FENCED_WITHIN = 60.0
"""A process that runs renews its lease every 30 s."""
NOTICED_WITHIN = {
    "rot": RE_READ_WITHIN,
    "object deleted": RE_READ_WITHIN,
    "overwritten": RE_READ_WITHIN,
    "overwritten alike": RE_READ_WITHIN,  # with as many bytes, where the store tells no checksum
    "manifest deleted": 1 * DAY,
}
A_YEAR = 365 * DAY  # rot where the store keeps a checksum, and tells the old one
UNSEEN_SECONDS = {"manifest": 5.0, "object": 30.0}
"""So long a destination may be unmounted, while a process runs, before it writes nothing there any more: it asks again
after 3 and 20 s. Nobody can look between two instructions: time for which the process is paused does not count."""
SWEEP_SEEN_FOR = 6 * MINUTE
"""A sweep whose process was killed counts as running until its lock ends, 5 minutes after its last page."""
RECORDED_WITHIN = 5 * MINUTE
"""An attempt ends, and opens the breaker, so soon after it was refused."""
REFUSALS = 6
"""One attempt is refused twice or more, and its worker may be killed before it has recorded that."""
CLEAR_ENOUGH = 2 * DAY
"""An asset that was readable for this long without any fault must have been read."""


@dataclass
class Harm:
    at: float
    kind: str
    key: str
    is_hidden: bool  # the store tells the checksum that it had before
    read_at: float | None = None  # when the scrub read what was harmed, and could see it

    @property
    def noticed_by(self) -> float:
        """Until when the ledger may go on calling the asset archived."""
        if self.read_at is not None:
            return self.read_at + 2 * DAY
        return self.at + (A_YEAR if self.is_hidden else NOTICED_WITHIN[self.kind])


@dataclass
class Found:
    """A manifest as it lies in a bucket, read without the product's code."""

    raw: dict[str, Any]

    @property
    def proves(self) -> bool:
        return (
            self.raw.get("schema") == "archiver.manifest/1"
            and not self.raw.get("doubts")
            and not self.raw.get("damage")
        )

    @cached_property
    def objects(self) -> list[tuple[str, int, str]]:
        folder = self.raw["folder"]
        return [(f"{folder}/{item['path']}", item["size"], item["crc32c"]) for item in self.raw["objects"]]

    def path(self, key: str) -> str:
        return key.removeprefix(f"{self.raw['folder']}/")


def _is_record(key: str) -> bool:
    """Whether a ledger that was lost is rebuilt from it."""
    return key.startswith((MANIFESTS, ENDS))


def _is_marked(was: Found | None, now: Found | None) -> bool:
    """Whether the same manifest is there, but for what it says of damage."""
    if was is None or now is None:
        return False
    return {**was.raw, "damage": None} == {**now.raw, "damage": None}


@dataclass(frozen=True)
class Overwritten:
    """What was put over other bytes, when and by whom. `is_stale`: its lease was over, and it could not know."""

    data: bytes
    at: float
    process: str
    is_stale: bool


@dataclass
class Oracle:
    scheduler: Scheduler
    faults: Faults
    assets: dict[str, TrueAsset]
    destinations: list[Destination]
    ledger: AuditedLedger
    logs: Logs
    on_lease: Callable[[str], None]
    quorum: int
    keep_days: int | None
    alerts: Any = None  # `alerting.AlertOracle`
    harms: dict[tuple[str, str], list[Harm]] = field(default_factory=lambda: defaultdict(list))
    epoch: int = 0  # of the ledger: a flush or a rollback begins another
    epoch_began: float = 0.0
    rejected: set[str] = field(default_factory=set)
    calm_from: float = float("inf")
    swept_at: float | None = None
    sweep_began: float = _NEVER
    reconciled_at: float = 0.0  # the last whole reconcile ended, or the first is expected
    compared_from: float = _NEVER  # and its task began
    leases: int = 0
    met: dict[str, int] = field(default_factory=dict)
    """By fault of the API, the epoch in which the last whole sweep met it from first to last."""

    def __post_init__(self) -> None:
        self.copies = CopiesOracle(
            self.scheduler,
            self.faults,
            self.assets,
            self.destinations,
            self.ledger,
            self.quorum,
            manifest=self.manifest,
            problem=self.problem,
            is_removed=lambda asset_id: self.is_erased(asset_id) or asset_id in self.expiry.deleted_by_rule,
            harmed_at=lambda store, asset_id: max(
                (harm.at for harm in self.harms[asset_id, store.name]), default=_NEVER
            ),
        )
        self.expiry = ExpiryOracle(
            self.scheduler,
            self.assets,
            self.keep_days,
            epoch=lambda: self.epoch,
            archived_at=self._latest_archived_at,
            rejected=self.rejected,
        )
        self._writers: dict[tuple[str, str], int] = {}  # the lease of a manifest's writer
        self._written_at: dict[tuple[str, str], float] = {}  # a manifest
        self._deleted_by: dict[tuple[str, str], tuple[str, float]] = {}  # a process, and when
        self._overwritten: dict[tuple[str, str], Overwritten] = {}
        """By store and key."""
        self._manifests: dict[tuple[str, str], str] = {}  # store and asset -> key
        self._reading: dict[tuple[str, str, str], int] = {}
        self._read_at: dict[tuple[str, str], float] = {}
        self._met_harms: dict[str, list[Harm]] = defaultdict(
            list
        )  # by process: read in the task that goes on
        self._first_read: dict[tuple[str, str], float] = {}
        self._looked_at: dict[tuple[str, str], float] = {}
        self._committed_at: dict[tuple[str, str], float] = {}
        self._put_at: dict[tuple[str, str], float] = {}  # when it was last put where nothing was
        self._seen_manifests: dict[bytes, Found] = {}
        self._judged: dict[tuple[str, str], tuple[Found, list[StoredObject | None], str | None]] = {}
        self._tombstones = {asset_id: tombstone_key(asset_id) for asset_id in self.assets}
        self._leased_at: dict[str, float] = {}  # the last time
        self._lost: set[str] = set()  # at some time
        self._last_lease: dict[str, tuple[int, int]] = {}  # epoch and number, by asset
        self._mixed: dict[str, set[frozenset[tuple[str, str]]]] = defaultdict(set)  # segments of two versions
        self._flushed_at: list[float] = []
        self._known: dict[str, float] = {}  # when the fleet last recorded something of it

    # -- what is really there ----------------------------------------------------------------------------------
    def manifest(self, store: Destination, asset_id: str) -> Found | None:
        key = self._manifests.get((store.name, asset_id))
        there = store.objects.get(key) if key else None
        return self._parsed(there.data) if there else None

    def _parsed(self, data: bytes) -> Found | None:
        found = self._seen_manifests.get(data)
        if found is None:
            try:
                found = self._seen_manifests[data] = Found(json.loads(data))
            except ValueError:
                return None
        return found

    def _latest_archived_at(self, asset_id: str) -> float | None:
        found = [manifest for store in self.destinations if (manifest := self.manifest(store, asset_id))]
        dates = [datetime.fromisoformat(manifest.raw["archived_at"]) for manifest in found]
        return max(((at - START).total_seconds() for at in dates), default=None)

    def problem(self, store: Destination, asset_id: str) -> str | None:
        """Return why the asset is not archived at the store; None when it is, whole."""
        manifest = self.manifest(store, asset_id)
        if manifest is None:
            return "no manifest"
        if not manifest.proves:
            return "its manifest proves nothing"
        found = [store.objects.get(key) for key, _, _ in manifest.objects]
        judged = self._judged.get((store.name, asset_id))
        if judged is None or judged[0] is not manifest or not all(map(is_, judged[1], found)):
            judged = manifest, found, self._judge(store, manifest, asset_id)
            self._judged[store.name, asset_id] = judged
        return judged[2]

    def _judge(self, store: Destination, manifest: Found, asset_id: str) -> str | None:
        """As `problem`, of a manifest that proves its asset."""
        if (why := self._contradiction(store, manifest)) is not None:
            return why
        stored = {manifest.path(key): store.objects[key].data for key, _, _ in manifest.objects}
        if manifest.raw.get("accepted"):
            return None
        truth = self.assets[asset_id]
        for version in truth.versions:
            if all(stored.get(path) == body for path, body in version.media.items()) and set(
                version.files
            ) <= set(stored):
                return None
        return NO_VERSION

    def _contradiction(self, store: Destination, manifest: Found) -> str | None:
        """Return what the store does not hold as the manifest says; None when it holds all of it."""
        for key, size, crc in manifest.objects:
            there = store.objects.get(key)
            if there is None:
                return f"{manifest.path(key)} is not there"
            if len(there.data) != size or f"{crc32c(there.data):08x}" != crc:
                return f"{manifest.path(key)} is not what the manifest says"
        return None

    # -- told by the ledger ------------------------------------------------------------------------------------
    def leased(self, process: Process, lease: Lease, *, was_living: bool) -> None:
        if was_living:
            self._broken("one worker at a time", f"{process.name} was given {lease.asset_id}")
        self.leases += 1
        self._last_lease[lease.asset_id] = (self.epoch, self.leases)
        self._leased_at[lease.asset_id] = self.scheduler.seconds
        process.lease_number = self.leases
        process.attempt_began = self.scheduler.seconds
        process.asset_id = lease.asset_id
        self.on_lease(lease.asset_id)

    def settled_lease(self, process: Process, asset_id: str) -> None:
        """The ledger has let it settle."""
        epoch, number = self._last_lease.get(asset_id, (self.epoch, 0))
        if epoch == self.epoch and number > process.lease_number:
            self._broken("no lease settles that was followed by another", f"{process.name} {asset_id}")

    def discovered(self, before: dict[str, Row]) -> None:
        for row in before.values():
            now = self.ledger.get(row.asset_id)
            if row.state is AssetState.ARCHIVED and (now is None or now.state is not AssetState.ARCHIVED):
                self._broken("a sweep reopens nothing that is archived", row.asset_id)

    def settled(self, process: Process, before: Row | None, after: Row | None) -> None:
        if after is None:
            return
        self._known[after.asset_id] = self.scheduler.seconds
        now = self.ledger.now()
        if after.state is AssetState.WAITING and after.next_attempt_at is not None:
            if after.next_attempt_at - now > timedelta(days=1, seconds=1):
                self._broken("no wait is longer than a day", f"{after.asset_id} {after.next_attempt_at}")
            if now < after.expires_at < after.next_attempt_at:
                self._broken("no wait runs past the deadline", f"{after.asset_id} {after.next_attempt_at}")
        if before is not None and before.state is after.state:
            return
        self.expiry.settled(process.name, before, after)
        if before is not None and before.state is AssetState.ERASED and after.state not in REMOVED_STATES:
            self._broken("erased never returns", f"{process.name} made {after.asset_id} {after.state}")
        if after.state in (AssetState.ERASED, AssetState.EXPIRED) and (left := self._left_of(after.asset_id)):
            self._broken("erased is what nothing is left of", f"{process.name} {after.asset_id}: {left[0]}")
        if after.state is AssetState.ARCHIVED:
            self._check_archived(process, after)
        if after.state is AssetState.LOST:
            asset = self.assets[after.asset_id]
            if now < after.expires_at:
                self._broken("nothing is lost before its deadline", after.asset_id)
            if self.scheduler.seconds < asset.created + 16 * DAY:
                self._broken("nothing is lost within a day of its deadline", after.asset_id)
            restored = after.asset_id in self._lost and not process.name.startswith("worker")
            if after.asset_id not in self._lost:
                self.alerts.lost(after)
            self._lost.add(after.asset_id)
            wrong_clock = self.faults.began("api clock", None, self.scheduler.seconds) < process.attempt_began
            if wrong_clock and not restored:  # from its end record, after the ledger was lost
                self._broken("nothing is lost while the clocks disagree", after.asset_id)
            if all(self.problem(store, after.asset_id) is None for store in self.destinations):
                self._broken("nothing is lost that is whole everywhere", after.asset_id)

    def _check_archived(self, process: Process, row: Row) -> None:
        problems = {
            store.name: why
            for store in self.destinations
            if (why := self.problem(store, row.asset_id))
            and not self._excused(process, store, row.asset_id, why)
        }
        if len(self.destinations) - len(problems) >= self.quorum:
            self.copies.archived_at_quorum(row.asset_id, list(problems))
            return
        name, why = next(iter(problems.items()))
        self._broken(
            "archived only when whole everywhere"
            if self.quorum == len(self.destinations)
            else "archived only when whole at the quorum",
            f"{process.name} settled {row.asset_id} as archived: {name}: {why}",
        )

    def is_erased(self, asset_id: str) -> bool:
        """Whether a tombstone is at some destination."""
        key = self._tombstones[asset_id]
        return any(key in store.objects for store in self.destinations)

    def _left_of(self, asset_id: str) -> list[str]:
        """Return what is still there of it, but for tombstones."""
        return [
            f"{key} at {store.name}"
            for store in self.destinations
            for key in (*sorted(store.objects), *(store.retention.older() if store.retention else ()))
            if asset_id in key and not is_tombstone(key)
        ]

    def _excused(self, process: Process, store: Destination, asset_id: str, why: str) -> bool:
        """Harm that the attempt could not see: done meanwhile, or of a kind that no listing shows; or the source
        changed in the middle of it."""
        if not store.mounted and store.unmounted_for <= UNSEEN_SECONDS["manifest"]:
            # a marker that was read seconds before it was unmounted: reconcile finds out
            over_at = self.scheduler.seconds + DAY
            self.harms[asset_id, store.name].append(Harm(over_at, "manifest deleted", "", is_hidden=False))
            return True
        since = process.attempt_began
        if any(
            harm.kind in ("rot", "overwritten alike") or harm.at >= since
            for harm in self.harms[asset_id, store.name]
        ):
            return True
        if why == NO_VERSION:
            return self._may_be_mixed(process, store, asset_id)
        return any(version.since >= since for version in self.assets[asset_id].versions[1:])

    def _may_be_mixed(self, process: Process, store: Destination, asset_id: str) -> bool:
        """Whether the attempt that stored this copy could not know that the source changed in the middle of it: a tree
        is compared once more after a longer copy, if its playlists can be read then."""
        segments = self._segments(store, asset_id)
        if segments in self._mixed[asset_id]:
            return True
        first, last = process.source_reads.get(asset_id, (_NEVER, _NEVER))
        if first < process.attempt_began:
            return False
        hindered = self.faults.windows("source", f"source:{asset_id}", "api", f"api:{process.name}")
        asset = self.assets[asset_id]
        if (
            last - first < COMPARED_AFTER
            or any(start < self.scheduler.seconds and end > last for start, end in hindered)
            or not asset.is_there(self.scheduler.seconds)
        ) and any(first <= version.since <= last for version in asset.versions[1:]):
            self._mixed[asset_id].add(segments)
            return True
        return False

    def _segments(self, store: Destination, asset_id: str) -> frozenset[tuple[str, str]]:
        manifest = self.manifest(store, asset_id)
        objects = manifest.objects if manifest is not None else []
        return frozenset((key.rsplit("/", 1)[1], crc) for key, _, crc in objects if key.endswith(".ts"))

    # -- told by the stores ------------------------------------------------------------------------------------
    def wrote(
        self, process: Process, store: Destination, key: str, before: StoredObject | None, mounted: bool
    ) -> None:
        if before is None:
            self._put_at[store.name, key] = self.scheduler.seconds
        if not mounted:
            seconds = UNSEEN_SECONDS["manifest" if key.startswith(MANIFESTS) else "object"]
            ours = key.startswith((MANIFESTS, "recordings/"))
            if ours and process.awake_seconds_since(store.unmounted_at) > seconds:
                self._broken("nothing is written to a destination that is not there", f"{process.name} {key}")
            return
        if key == FOREIGN:
            self._broken("nobody else's object is touched", f"{process.name} wrote {key}")
        if is_tombstone(key):
            self.expiry.buried(store.objects[key].data)
        if key.startswith(MANIFESTS):
            self._wrote_manifest(process, store, key, before)
        elif key.startswith("recordings/"):
            asset_id = next((part for part in key.split("/") if part in self.assets), "")
            if before is not None:
                self._check_listed(process, store, key, before, "overwrote")
            self._note_overwritten(process, store, key, before, asset_id)
            self.copies.wrote(asset_id, store, is_harmed=False)

    def _note_overwritten(
        self, process: Process, store: Destination, key: str, before: StoredObject | None, asset_id: str
    ) -> None:
        data = store.objects[key].data
        is_stale = self._cannot_know_its_lease_is_over(process, asset_id)
        if before is None or (data == before.data and not is_stale):
            self._overwritten.pop((store.name, key), None)
        elif data != before.data:
            self._overwritten[store.name, key] = Overwritten(
                data, self.scheduler.seconds, process.name, is_stale=is_stale
            )

    def _wrote_manifest(
        self, process: Process, store: Destination, key: str, before: StoredObject | None
    ) -> None:
        asset_id = key.rsplit("/", 1)[1].removesuffix(".json")
        if asset_id not in self.assets:
            return
        earlier = self._manifests.setdefault((store.name, asset_id), key)
        if earlier != key:
            self._manifests[store.name, asset_id] = key
        manifest = self.manifest(store, asset_id)
        was = self._parsed(before.data) if before else None
        lease = process.lease_number
        if process.name.startswith("worker") or process.is_replicating:
            last = self._writers.get((store.name, asset_id))
            is_older = last is not None and last > lease
            written_at = self._written_at.get((store.name, asset_id), _NEVER)
            looked_at = max(process.looked_at.get((store.name, key), _NEVER), process.about_to_write_at)
            if (
                is_older
                and before is not None
                and not _is_marked(was, manifest)
                and (store.compares or written_at < looked_at)
            ):
                self._broken(
                    "no older lease replaces a newer manifest",
                    f"{process.name} with lease {lease} over {last}: {key}",
                )
            if not _is_marked(was, manifest):
                self._writers[store.name, asset_id] = lease
            self._written_at[store.name, asset_id] = self.scheduler.seconds
        if manifest is not None and manifest.proves:
            self._committed_at[store.name, asset_id] = self.scheduler.seconds
            self.expiry.committed(asset_id)
            why = self.problem(store, asset_id)
            self.copies.wrote(
                asset_id,
                store,
                is_harmed=any(harm.at >= process.attempt_began for harm in self.harms[asset_id, store.name]),
            )
            if why and self._deleted_meanwhile(process, store, asset_id):
                self._soon_marked(store, asset_id)
            elif (
                why
                and not self._is_overwritten_unseen(process, store, asset_id, manifest)
                and not self._excused(process, store, asset_id, why)
                and not ("is not there" in why and self._erased_meanwhile(process, store, asset_id))
            ):
                self._broken(
                    "no manifest proves what is not whole", f"{process.name} {store.name} {key}: {why}"
                )
        elif was is not None and was.proves and manifest is not None and manifest.raw.get("damage"):
            asked = process.name == "operator" and manifest.raw["damage"] == [ASKED_AGAIN]
            harmed = bool(self.harms[asset_id, store.name])
            is_whole = self._contradiction(store, was) is None
            if is_whole and not harmed and not store.corrupted and not asked:
                self._broken("nothing whole is called damaged", f"{process.name} {key}")

    def _erased_meanwhile(self, process: Process, store: Destination, asset_id: str) -> bool:
        """Whether the tombstone was first put there while this attempt was paused, or seconds before: it looked for it
        before that, and looks again."""
        key = tombstone_key(asset_id)
        put_at = self._put_at.get((store.name, key), _NEVER)
        return key in store.objects and process.awake_seconds_since(put_at) <= UNSEEN_SECONDS["manifest"]

    def _deleted_meanwhile(self, process: Process, store: Destination, asset_id: str) -> bool:
        """Whether another attempt deleted its own object, over one of this attempt, while this one was paused."""
        name, at = self._deleted_by.get((store.name, asset_id), ("", _NEVER))
        return name != process.name and at >= max(process.attempt_began, process.paused_at)

    def _is_overwritten_unseen(
        self, process: Process, store: Destination, asset_id: str, manifest: Found
    ) -> bool:
        """Whether all that is wrong was overwritten by another worker, and this attempt could not see that: it had
        listed the objects before, and lists them again after its commit (its own lease may be over, or the other
        one's); or they have the same size and the store no checksums, so that only the scrub finds it
        (docs/decisions/0008-fencing.md)."""
        shown: list[bool] = []  # of each object that a list tells: whether none was asked since
        alike: list[str] = []
        for key, size, crc in manifest.objects:
            there = store.objects.get(key)
            if there is not None and (len(there.data), f"{crc32c(there.data):08x}") == (size, crc):
                continue
            by = self._overwritten.get((store.name, key))
            if there is None or by is None or there.data != by.data or by.process == process.name:
                return False
            is_unseen = process.awake_seconds_since(by.at) <= UNSEEN_SECONDS["manifest"]
            if (by.is_stale or is_unseen) and len(by.data) == size and not store.checksums:
                alike.append(key)
            else:
                shown.append(is_unseen)
        if not all(shown):
            return False
        if shown:
            self._soon_marked(store, asset_id)
        for key in alike:
            self.harm(store, asset_id, "overwritten alike", key)
        return bool(shown or alike)

    def _soon_marked(self, store: Destination, asset_id: str) -> None:
        """It looks again after its commit; if it is killed before that, the next attempt does."""

        def check() -> None:
            row = self.ledger.get(asset_id)
            why = self.problem(store, asset_id)
            if row is None or row.state is not AssetState.ARCHIVED or not why:
                return
            if self.quorum < len(self.destinations) and self.copies.is_known_as_lacking(row, store):
                return  # archived at the quorum without it
            self._broken("what is archived is whole", f"{asset_id} at {store.name}: {why}")

        self.scheduler.at(self.scheduler.seconds + HOUR, check)

    def deleted(self, process: Process, store: Destination, key: str, before: StoredObject | None) -> None:
        asset_id = next((part for part in key.removesuffix(".json").split("/") if part in self.assets), "")
        if asset_id and self.is_erased(asset_id):
            return
        if key == FOREIGN or (key.startswith(MANIFESTS) and before is not None):
            self._broken("nobody else's object is touched", f"{process.name} deleted {key} at {store.name}")
        elif before is not None and key.startswith("recordings/"):
            asset_id = next((part for part in key.split("/") if part in self.assets), "")
            self._deleted_by[store.name, asset_id] = (process.name, self.scheduler.seconds)
            self._check_listed(process, store, key, before, "deleted")

    def _check_listed(
        self, process: Process, store: Destination, key: str, before: StoredObject, what: str
    ) -> None:
        asset_id = next((part for part in key.split("/") if part in self.assets), None)
        manifest = self.manifest(store, asset_id) if asset_id else None
        if manifest is None or not manifest.proves:
            return
        there = store.objects.get(key)
        for listed, size, crc in manifest.objects:
            right = (len(before.data), f"{crc32c(before.data):08x}") == (size, crc)
            if listed == key and right and (there is None or there.data != before.data):
                assert asset_id is not None
                if what == "overwrote" and self._cannot_know_its_lease_is_over(process, asset_id):
                    self._soon_compared(process, store, asset_id, key)
                    return
                self._broken("what a manifest lists stays", f"{process.name} {what} {key} at {store.name}")

    def _cannot_know_its_lease_is_over(self, process: Process, asset_id: str) -> bool:
        """Nothing fences the objects (docs/decisions/0008-fencing.md): it was paused, or the ledger was away."""
        _, number = self._last_lease.get(asset_id, (0, 0))
        if process.asset_id != asset_id or number <= process.lease_number:
            return False
        since = self._leased_at[asset_id]
        away = any(
            start < self.scheduler.seconds and end > since for start, end in self.faults.windows("ledger")
        )
        return away or process.awake_seconds_since(since) <= FENCED_WITHIN

    def _soon_compared(self, process: Process, store: Destination, asset_id: str, key: str) -> None:
        """It compares what it wrote with the manifest, and marks that; the scrub finds it if it is killed before."""
        life, over = process.lives, self.scheduler.seconds
        self.harm(store, asset_id, "overwritten", key)

        def check() -> None:
            is_stopped = process.lives != life or process.awake_seconds_since(over) < HOUR / 2
            row, why = self.ledger.get(asset_id), self.problem(store, asset_id)
            faults = self.faults.windows("ledger", f"store:{store.name}")
            is_hindered = any(start < self.scheduler.seconds and end > over for start, end in faults)
            if (
                row is not None
                and row.state is AssetState.ARCHIVED
                and why
                and not (is_stopped or is_hindered)
            ):
                self._broken(
                    "what a manifest lists stays", f"{process.name} overwrote {key} at {store.name}: {why}"
                )

        self.scheduler.at(over + HOUR, check)

    def read(self, process: Process, store: Destination, key: str, start: int, data: bytes) -> None:
        if not process.name.startswith("control") or process.is_replicating:
            return
        reading = (process.name, store.name, key)
        if start == 0:
            self._reading[reading] = 0
        if self._reading.get(reading) == start:
            self._reading[reading] = start + len(data)
            there = store.objects.get(key)
            if there is not None and start + len(data) >= len(there.data):
                self._first_read.setdefault((store.name, key), self.scheduler.seconds)
                self._read_at[store.name, key] = self.scheduler.seconds
                asset_id = next((part for part in key.split("/") if part in self.assets), "")
                self._met_harms[process.name] += [
                    harm
                    for harm in self.harms.get((asset_id, store.name), ())
                    if harm.key == key and harm.read_at is None
                ]

    def task_begins(self, process: Process) -> None:
        """What it read in a task before was all forgotten if it was killed."""
        process.attempt_began = self.scheduler.seconds
        self._met_harms[process.name] = []

    def task_ended(self, process: Process) -> None:
        """It has told what it found."""
        for harm in self._met_harms[process.name]:
            harm.read_at = harm.read_at or self.scheduler.seconds

    def looked(self, process: Process, store: Destination, keys: Sequence[str]) -> None:
        """It was told of these objects, and their checksums."""
        if process.name.startswith("control"):
            self._looked_at.update(dict.fromkeys([(store.name, key) for key in keys], self.scheduler.seconds))

    # -- harm from outside -------------------------------------------------------------------------------------
    def harm(self, store: Destination, asset_id: str, kind: str, key: str) -> None:
        self.scheduler.note("world", f"{kind} of {asset_id} at {store.name}: {key}")
        self.harms[asset_id, store.name].append(
            Harm(self.scheduler.seconds, kind, key, kind == "rot" and store.checksums)
        )

    def new_epoch(self, *, flushed: bool) -> None:
        self.epoch += 1
        self.epoch_began = self.scheduler.seconds
        if flushed:
            self._flushed_at.append(self.epoch_began)
        # what was recorded on its last day may be in no bucket yet, and not listed any more
        self._known = {
            each: at
            for each, at in self._known.items()
            if at < self.epoch_began - DAY and not self._is_gone_unseen(each)
        }

    def _is_gone_unseen(self, asset_id: str) -> bool:
        """Whether somebody deleted its last manifest since the last whole reconcile began, so that the ledger alone
        told of it."""
        return not any(
            asset_id in key for store in self.destinations for key in store.objects if _is_record(key)
        ) and any(
            harm.kind == "manifest deleted" and harm.at >= self.compared_from
            for store in self.destinations
            for harm in self.harms[asset_id, store.name]
        )

    # -- looked at from time to time ---------------------------------------------------------------------------
    def look(self) -> None:
        counts = self.ledger.counts()
        if counts.seen != sum(counts.states.values()):
            self._broken("seen is the sum of all states", f"{counts}")
        for row in self.ledger.all_rows():
            if row.state is AssetState.ARCHIVED:
                self._look_at_archived(row)
        rows = {row.asset_id: row for row in self.ledger.all_rows()}
        for asset_id in self.assets:
            self.expiry.look(rows.get(asset_id), asset_id, self.epoch_began)
        self.copies.look(self.calm_from, self.epoch_began)

    def _look_at_archived(self, row: Row) -> None:
        if row.asset_id in self.expiry.deleted_by_rule:
            return
        problems = {
            store.name: why
            for store in self.destinations
            if (why := self.problem(store, row.asset_id)) is not None
        }
        known = [store.name for store in self.destinations if self.copies.is_known_as_lacking(row, store)]
        noticed_by = {name: self._all_noticed_by(row.asset_id, name) for name in problems}
        # a copy that was harmed unnoticed counts, unless the ledger itself calls it lacking or damaged
        failing = [
            name
            for name in problems
            if name in known or self.scheduler.seconds > (noticed_by[name] or _NEVER)
        ]
        is_at_quorum = len(self.destinations) - len(failing) >= self.quorum
        for name, why in problems.items():
            if name in known and is_at_quorum:
                continue
            allowed = noticed_by[name]
            if allowed is None and self.epoch and self.scheduler.seconds < self.epoch_began + 1 * DAY:
                continue
            store = next(each for each in self.destinations if each.name == name)
            if why == NO_VERSION and self._segments(store, row.asset_id) in self._mixed[row.asset_id]:
                continue
            if allowed is not None and self.expiry.is_over(row.asset_id, allowed):
                continue
            if allowed is None or self.scheduler.seconds > allowed:
                self._broken("what is archived is whole", f"{row.asset_id} at {name}: {why}")

    def _all_noticed_by(self, asset_id: str, name: str) -> float | None:
        """Until when the ledger may know nothing of what befell this copy; None when nothing did."""
        harms = self.harms[asset_id, name]
        return max((max(self._noticed_by(harm), self.epoch_began + DAY) for harm in harms), default=None)

    def _noticed_by(self, harm: Harm) -> float:
        """The next whole reconcile sees that a manifest is gone. If none ends, `_check_healthy` asks for that."""
        if harm.kind == "manifest deleted" and self.compared_from <= harm.at:
            return float("inf")
        return harm.noticed_by

    def watched(self, summary: Summary, began: float, before: Mapping[str, Row]) -> None:
        """A control process has looked, and alarmed. `before`: the rows when it began."""
        if self.scheduler.seconds - began > MINUTE:
            return  # one that was paused since it looked tells what was true
        now = self.ledger.now()
        overdue = [
            row
            for row in self.ledger.all_rows()
            if row.state in OPEN_STATES and row.stored_objects == 0 and row.expires_at < now
        ]
        for row in overdue:
            known_for = now - max(row.changed_at, row.first_seen_at)
            if row.asset_id not in self.logs.alarmed and known_for > timedelta(hours=3):
                self._broken("nothing is open past its deadline without an alarm", f"{row.asset_id}")
        if self.scheduler.seconds - max(self.reconciled_at, self.calm_from) > 2 * DAY:
            self._broken("the ledger is compared with the destinations", f"last at {self.reconciled_at}")
        if began > self.epoch_began:  # else read in part before the ledger was lost
            self._check_refusals_are_told(summary)
            if summary.healthy:
                self._check_healthy(summary, began, before)

    def _check_refusals_are_told(self, summary: Summary) -> None:
        """Also between two attempts, while nobody knows whether it takes anything again."""
        told = {destination_of(name) for name in summary.open_breakers}
        for store in self.destinations:
            if len(self._recorded_refusals(store)) >= 2 and store.name not in told:
                self._broken("a destination that refuses is told", store.name)

    def _check_healthy(self, summary: Summary, began: float, before: Mapping[str, Row]) -> None:
        now, seconds = self.ledger.now(), self.scheduler.seconds
        margin = AT_RISK - timedelta(hours=1)
        # a row that changed while it was counted is judged by the next look
        rows = [row for row in self.ledger.all_rows() if before.get(row.asset_id) == row]
        for row in rows:
            if row.state in (AssetState.LOST, AssetState.DAMAGED) and row.acknowledged is None:
                self._broken("healthy only when it is", f"{row.asset_id} is {row.state}")
            if (
                row.state in OPEN_STATES
                and row.stored_objects == 0
                and row.expires_at - now < margin
                and now - max(row.changed_at, row.first_seen_at) > timedelta(hours=1)
            ):
                self._broken(
                    "healthy only when it is", f"{row.asset_id} is {row.state} and near its deadline"
                )
        if (lacking := self.copies.not_whole_everywhere(rows, self.epoch_began)) is not None:
            self._broken("healthy only when it is", lacking)
        is_sweeping = seconds - self.sweep_began < SWEEP_SEEN_FOR
        if self.swept_at is None or (seconds - self.swept_at > 4 * SWEEP_EVERY and not is_sweeping):
            self._broken("healthy only when it is", f"the last whole sweep was at {self.swept_at}")
        if seconds - self.reconciled_at > DAY + MINUTE:
            self._broken("healthy only when it is", f"the last whole reconcile was at {self.reconciled_at}")
        for met, epoch in self.met.items():
            if epoch == self.epoch:
                self._broken("healthy only when it is", f"the last sweep met a fault of the {met}")
        for store in self.destinations:
            for fault in self.faults.all:
                reported = fault.where == f"store:{store.name}" and fault.kind == "unmounted"
                if reported and fault.start + 8 * HOUR < seconds < fault.end and self._is_needed():
                    self._broken("healthy only when it is", f"{store.name} is {fault.kind}")

            if self._refuses(store) or store.refused_control_at >= max(began, self.epoch_began):
                self._broken("healthy only when it is", f"{store.name} refuses what is written")

    def _refuses(self, store: Destination) -> bool:
        """Return whether it refused objects of workers so often within the last hour that one of them must have
        recorded it. One that refuses its marker alone is used without."""
        now = self.scheduler.seconds
        since = now - HOUR
        if not self._is_ledger_whole_since(since):
            return False
        since = max([since, *store.took_at.values()])
        return sum(since < refusal.at < now - MINUTE for refusal in store.refusals) >= REFUSALS

    def _is_ledger_whole_since(self, since: float) -> bool:
        return self.epoch_began <= since and all(end <= since for _, end in self.faults.windows("ledger"))

    def _recorded_refusals(self, store: Destination) -> set[tuple[str, float]]:
        """Return the attempts that were refused within the hour, and of which each worker has recorded that: it runs
        since."""
        since = self.scheduler.seconds - HOUR
        if not self._is_ledger_whole_since(since):
            return set()
        return {
            (refusal.process.name, refusal.attempt_began)
            for refusal in store.refusals
            if refusal.at > max(since, store.took_at.get(refusal.process.name, _NEVER))
            and refusal.process.lives == refusal.life
            and refusal.process.awake_seconds_since(refusal.at) > RECORDED_WITHIN
        }

    def _is_needed(self) -> bool:
        return any(row.state in OPEN_STATES for row in self.ledger.all_rows())

    def swept(self, fact: Mapping[str, object]) -> None:
        """What status is to say of the last sweep is decided now, also when its process is killed a moment later."""
        self.swept_at = self.scheduler.seconds
        began = (datetime.fromisoformat(str(fact["started_at"])) - START).total_seconds()
        if self.epoch_began >= began:
            return
        kinds = ("api rows", "api clock")
        active = [kind for kind in kinds if self.faults.began(kind, None, self.scheduler.seconds) < began]
        self.met = dict.fromkeys(active, self.epoch)

    def told(self, process: Process, book: Mapping[str, object]) -> None:
        self.alerts.recorded(process, book)

    def not_told(self, process: Process) -> None:
        self.alerts.not_recorded(process)

    def reconcile_expected(self) -> None:
        self.reconciled_at = self.scheduler.seconds

    def reconciled(self, process: Process) -> None:
        """All manifests were listed since its task began."""
        self.reconciled_at = self.scheduler.seconds
        self.compared_from = process.attempt_began

    def has_swept(self, began: float) -> None:
        """A whole sweep has ended: what was listed all the time is known."""
        if self.epoch_began >= began:
            return
        known = {row.asset_id for row in self.ledger.all_rows()}
        for asset in self.assets.values():
            if asset.listed(began) and asset.listed(self.scheduler.seconds) and asset.id not in known:
                self._broken("what a sweep saw is known", asset.id)

    # -- at the end --------------------------------------------------------------------------------------------
    def settled_down(self) -> None:
        """All faults were lifted long ago, and every deadline is past."""
        self.look()
        known = {row.asset_id: row for row in self.ledger.all_rows()}
        for asset_id in self._known:
            if asset_id not in known and asset_id not in self.expiry.deleted_by_rule:
                self._broken("nothing that was known is forgotten", asset_id)
        for asset in self.assets.values():
            row = known.get(asset.id)
            if self.is_erased(asset.id):
                self._check_erased(asset.id, row)
                continue
            if (
                asset.id in self.rejected
                or asset.id in self.expiry.deleted_by_rule
                or asset.fails_at is not None
            ):
                continue
            state = row.state if row else None
            harmed = any(self.harms[asset.id, store.name] for store in self.destinations)
            if state is AssetState.ARCHIVED:
                continue
            is_whole = any(self.problem(store, asset.id) is None for store in self.destinations)
            if (
                harmed
                and state in (AssetState.DAMAGED, AssetState.LOST)
                and (not is_whole or self._mends(asset.id))
            ):
                continue
            if (
                harmed
                and row is not None
                and row.state in OPEN_STATES
                and not is_over(row, self.ledger.now() - LOST_AFTER - timedelta(hours=6))
            ):
                continue  # undated, and first seen again when the ledger was lost: its source may last, and a day more
            if (
                state is None
                and harmed
                and all(self._is_unknowable(store, asset.id) for store in self.destinations)
            ):
                continue
            if state is AssetState.QUARANTINED and any(store.no_overwrite for store in self.destinations):
                continue  # a manifest with doubts can never be replaced there: a person is asked
            clear = longest_clear(
                max(asset.ready_from, asset.listed_from), asset.gone_from, self._windows(asset.id)
            )
            if clear >= CLEAR_ENOUGH:
                reason = row.reason if row else "unknown to the ledger"
                self._broken(
                    "what could be had is archived",
                    f"{asset.id} ({asset.type}) is {state}, could be had for {clear / HOUR:.0f} h: {reason}",
                )

    def _mends(self, asset_id: str) -> bool:
        """Whether what was harmed may still be mended from a copy that is whole (`CopiesOracle` says by when), or never
        can: what a store must not overwrite."""
        since = self.scheduler.seconds - MENDED_WITHIN
        return (
            max(self.calm_from, self.epoch_began) > since
            or any(store.no_overwrite for store in self.destinations)
            or any(
                harm.at > since or (harm.read_at or _NEVER) > since
                for store in self.destinations
                for harm in self.harms[asset_id, store.name]
            )
        )

    def _check_erased(self, asset_id: str, row: Row | None) -> None:
        """A retention policy may keep it from ending, and a lock until it is over; nothing brings it back."""
        state = row.state if row else None
        keeps = any(store.no_overwrite or self._is_locked(store, asset_id) for store in self.destinations)
        if self.expiry.began_lately(asset_id):
            return
        is_done = state in (AssetState.ERASED, AssetState.EXPIRED)
        if not is_done and not (keeps and state is AssetState.ERASING):
            reason = row.reason if row else "unknown to the ledger"
            self._broken("an erasure that was begun ends", f"{asset_id} is {state}: {reason}")
        if is_done and (left := self._left_of(asset_id)):
            self._broken("erased never returns", f"{asset_id}: {left[0]}")

    def _is_locked(self, store: Destination, asset_id: str) -> bool:
        """Whether something of it was locked until a day ago: the next reconcile ends the erasure."""
        return (
            store.retention is not None and store.retention.ended_at(asset_id) > self.scheduler.seconds - DAY
        )

    def all_unlocked(self) -> None:
        """The last lock ended long ago."""
        rows = {row.asset_id: row for row in self.ledger.all_rows()}
        for asset_id in filter(self.is_erased, self.assets):
            self._check_erased(asset_id, rows.get(asset_id))

    def _is_unknowable(self, store: Destination, asset_id: str) -> bool:
        """Its manifest was deleted, and the ledger was lost before anything else told of it, perhaps more than once."""
        deleted = [harm.at for harm in self.harms[asset_id, store.name] if harm.kind == "manifest deleted"]
        return (
            self.manifest(store, asset_id) is None
            and bool(deleted)
            and any(0 < at - max(deleted) < 3 * DAY for at in (self.epoch_began, *self._flushed_at))
        )

    def _windows(self, asset_id: str) -> list[tuple[float, float]]:
        places = ["api", "ledger", "source", f"source:{asset_id}", "all"]
        places += [f"store:{store.name}" for store in self.destinations]
        return self.faults.windows(*places)

    def all_read(self) -> None:
        """A month and more after the last commit."""
        now = self.scheduler.seconds
        for store in self.destinations:
            for row in self.ledger.all_rows():
                manifest = self.manifest(store, row.asset_id)
                if row.state is not AssetState.ARCHIVED or manifest is None:
                    continue
                committed = self._committed_at.get((store.name, row.asset_id), now)
                over_at = self.assets[row.asset_id].created + 15 * DAY
                for key, _, _ in manifest.objects:
                    read = self._read_at.get((store.name, key), _NEVER)
                    checked = (
                        max(read, self._looked_at.get((store.name, key), _NEVER)) if store.checksums else read
                    )
                    if now - max(checked, committed) > RE_READ_WITHIN:
                        self._broken(
                            "everything is checked again in time", f"{key} at {store.name}: {checked}"
                        )
                    first = self._first_read.get((store.name, key), now)
                    kept = "scrub_promise_slips" not in self.logs.errors  # else it was told
                    faults = self.faults.windows("ledger", f"store:{store.name}")
                    put = max(
                        committed, self._put_at.get((store.name, key), _NEVER)
                    )  # later: what was deleted
                    clear = longest_clear(put, max(put, min(over_at, now)), faults)
                    if kept and clear > 3 * DAY and first > over_at + DAY / 2:
                        self._broken("what is new is read before its source ends", f"{key} at {store.name}")
                    if read == _NEVER and committed + 3 * DAY < now:
                        self._broken("what is new is read in full", f"{key} at {store.name}")

    def _broken(self, name: str, details: str) -> None:
        self.scheduler.broken(name, details)
