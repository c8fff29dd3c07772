"""Verify copies at rest: the store computes their checksums where they are, and no byte is downloaded or restored.

One job at a time at each destination: `at-rest/job.json` describes it, before it is asked for, so that a run that was
killed, or another person's, goes on with the same job. What the store computed counts as a full read in the record of
the scrub.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby

import structlog

from archiver.core.errors import ManifestError
from archiver.core.locks import acquire
from archiver.core.records import keys
from archiver.core.records.check_records import LATEST, Mark, read_records, write_records
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.upkeep.phases import OnProgress, ignore_progress
from archiver.core.upkeep.scrub import LOCK_NAME, LOCK_TTL
from archiver.hms.models import parse_time
from archiver.ledger.base import Facts
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectInfo, ObjectKey, ObjectSpec, StorageBackend, object_key
from storage_backends.conditional import replace_if
from storage_backends.errors import ObjectChanged, StorageError
from storage_backends.optional import Computed, ComputesChecksums

log = structlog.get_logger(__name__)

JOB = object_key(f"{keys.AT_REST}job.json")
SCHEMA = "archiver.at-rest/1"
MOST_OBJECTS = 200_000
"""In one job, or one asset: about 100 MB of memory when its report is compared."""
REPORT_WITHIN = timedelta(days=1)
"""After a job has ended; without a report by then it counts as failed."""
_MAX_JOB_BYTES = 64 * 1024

Report = Callable[[StorageBackend, ObjectKey, Manifest, tuple[str, ...]], None]


class Scope(StrEnum):
    COLD = "cold"  # copies that the scrub found in a cold class
    ALL = "all"


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A job goes on, or has just begun."""

    status: str
    done: int
    total: int
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Nothing:
    """No copy was verified: `why`."""

    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The job ended without a result. The next run begins another."""

    why: str


@dataclass(frozen=True, slots=True)
class Copy:
    """What a job found of one copy. `problems`: it is damaged. `unknown`: why it was not verified."""

    asset_id: str
    problems: tuple[str, ...] = ()
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A job ended, and its report was compared with the manifests."""

    copies: tuple[Copy, ...]
    objects: int

    @property
    def damaged(self) -> int:
        return sum(bool(copy.problems) for copy in self.copies)

    @property
    def unknown(self) -> int:
        return sum(copy.unknown is not None for copy in self.copies)


@dataclass(frozen=True, slots=True)
class _Job:
    token: str
    began_at: datetime
    listing: ObjectKey
    listing_etag: str
    objects: int
    job_id: str | None = None
    is_compared: bool = False

    def to_bytes(self) -> bytes:
        said = {
            "schema": SCHEMA,
            "token": self.token,
            "began_at": self.began_at.isoformat(),
            "listing": self.listing,
            "listing_etag": self.listing_etag,
            "objects": self.objects,
            "job_id": self.job_id,
            "compared": self.is_compared,
        }
        return json.dumps(said, indent=1).encode()


class AtRestVerifier:
    """`clock`: the ledger's. `report`: marks what is damaged. `full_every`: of the scrub."""

    def __init__(
        self,
        *,
        ledger: Facts,
        store: StorageBackend,
        jobs: ComputesChecksums,
        clock: Callable[[], datetime],
        report: Report,
        full_every: timedelta,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._report = report
        self._full_every = full_every

    def run(
        self, scope: Scope, on_progress: OnProgress = ignore_progress
    ) -> UnderWay | Nothing | Failed | Compared:
        """Begin a job, or look at the one that was begun and compare its report once it has ended. Idempotent; several
        at once go on with one job. Raises StorageError, LedgerError."""
        info, job = self._read_job()
        if job is None:
            begun = self._begin(scope, on_progress)
            if isinstance(begun, Nothing):
                return begun
            info, job = begun
        if job.is_compared:
            self._forget(job)
            return Nothing("the last job has been compared, and what was left of it is removed now")
        if job.job_id is None:
            job = self._ask(info, job)
        assert job.job_id is not None
        found = self._jobs.checksum_job(job.job_id)
        if found.succeeded is None:
            return UnderWay(found.status, found.done, found.total or job.objects, job.began_at)
        results = self._jobs.checksums(keys.AT_REST, job.job_id)
        if results is not None:
            return self._compare(job, dict(results), on_progress)
        if found.succeeded and (found.ended_at is None or self._clock() - found.ended_at < REPORT_WITHIN):
            return UnderWay("its report is not there yet", found.done, found.total, job.began_at)
        self._end(job)
        return Failed(
            f"job {job.job_id} ended as {found.status}, without a report: {found.why or 'no reason'}"
        )

    # -- begin -----------------------------------------------------------------------------------------------
    def _begin(self, scope: Scope, on_progress: OnProgress) -> tuple[ObjectInfo, _Job] | Nothing:
        token, lines, objects = secrets.token_hex(16), io.BytesIO(), 0
        chosen = self._chosen(scope)
        for number, key in enumerate(chosen):
            if objects >= MOST_OBJECTS:
                break  # the next job has the others
            on_progress(f"listing for {self._store.name}", number, len(chosen))
            try:
                manifest = read_manifest(self._store, key)
            except ManifestError as error:  # the scrub reports it
                log.warning("not_verified_at_rest", store=self._store.name, key=key, reason=str(error))
                continue
            if manifest is None or (objects and objects + len(manifest.objects) > MOST_OBJECTS):
                continue
            for item in manifest.objects:
                lines.write(self._jobs.checksum_line(manifest.key_of(item), key))
            objects += len(manifest.objects)
        if not objects:
            return Nothing(
                "no copy is known to be in a cold class: the daily scrub finds them (`--at-rest all` verifies all)"
                if scope is Scope.COLD
                else "nothing is archived here"
            )
        data = lines.getvalue()
        listing = object_key(f"{keys.AT_REST}{token}.csv")
        stored = self._store.put(ObjectSpec(listing, "text/csv", len(data)), data, crc32c(data))
        job = _Job(token, self._clock(), listing, stored.etag or "", objects)
        try:
            return self._write_job(job, None), job
        except ObjectChanged:  # another has begun one meanwhile
            self._store.delete(listing)
            info, other = self._read_job()
            if info is None or other is None:
                raise
            return info, other

    def _chosen(self, scope: Scope) -> list[ObjectKey]:
        """Manifests, those whose copies were read in full longest ago first."""
        checks = read_records(self._store, self._clock()).checks
        if scope is Scope.COLD:
            cold = [(check.read_at, key) for key, check in checks.items() if check.marks & Mark.COLD]
            return [key for _, key in sorted(cold)]
        listed = [info.key for info in self._store.list(keys.MANIFESTS) if info.key.endswith(".json")]
        read_at = {key: check.read_at for key in listed if (check := checks.get(key)) is not None}
        return sorted(listed, key=lambda key: (read_at.get(key, 0), key))

    def _ask(self, info: ObjectInfo | None, job: _Job) -> _Job:
        job_id = self._jobs.begin_checksums(job.listing, job.listing_etag, keys.AT_REST, job.token)
        log.info("checksum_job_begun", store=self._store.name, job_id=job_id, objects=job.objects)
        asked = replace(job, job_id=job_id)
        try:
            self._write_job(asked, info)
        except ObjectChanged:
            log.info("checksum_job_known", store=self._store.name, job_id=job_id)  # to whoever ran at once
        return asked

    # -- compare ---------------------------------------------------------------------------------------------
    def _compare(
        self, job: _Job, computed: dict[ObjectKey, Computed], on_progress: OnProgress
    ) -> UnderWay | Compared:
        with acquire(self._ledger, LOCK_NAME, LOCK_TTL) as lock:  # it writes the same record
            if lock is None:
                return UnderWay(
                    "a scrub is running; run it again afterwards", job.objects, job.objects, job.began_at
                )
            copies, whole = [], []
            noted = self._listed_manifests(job)
            for number, (key, objects) in enumerate(noted):
                on_progress(f"comparing {self._store.name}", number, len(noted))
                lock.extend()
                copy = self._copy(key, computed)
                copies.append(copy)
                if not copy.problems and copy.unknown is None:
                    whole.append(key)
                log.debug("verified_at_rest", store=self._store.name, key=key, objects=objects)
            self._record(whole)
        self._end(job)
        return Compared(tuple(copies), len(computed))

    def _listed_manifests(self, job: _Job) -> list[tuple[ObjectKey, int]]:
        """Return the manifests of the job, with the number of their objects. Raises StorageError."""
        lines = self._store.read(job.listing).decode().splitlines()
        try:
            notes = [self._jobs.checksum_note(line) for line in lines]
        except ValueError:
            raise StorageError(
                f"{self._store.name}/{job.listing} is not what was written; delete it and {JOB}, and begin again"
            ) from None
        return [(object_key(note), sum(1 for _ in group)) for note, group in groupby(notes)]

    def _copy(self, key: ObjectKey, computed: dict[ObjectKey, Computed]) -> Copy:
        asset_id = keys.asset_id_of(key) or key
        try:
            manifest = read_manifest(self._store, key)
            if manifest is None:
                return Copy(asset_id, unknown="its manifest is gone; the reconcile looks for it")
            problems, unknown = self._differences(manifest, computed)
            if problems:
                self._report(self._store, key, manifest, problems)
            return Copy(asset_id, problems, unknown)
        except (ManifestError, StorageError) as error:
            return Copy(asset_id, unknown=str(error))

    def _differences(
        self, manifest: Manifest, computed: dict[ObjectKey, Computed]
    ) -> tuple[tuple[str, ...], str | None]:
        """Raises StorageError."""
        problems, unknown = [], None
        for item in manifest.objects:
            key = manifest.key_of(item)
            found = computed.get(key)
            if found is not None and found.crc32c == item.crc:
                continue
            there = self._store.stat(key)
            if there is None:
                problems.append(f"{item.path}: missing")
            elif found is None or found.crc32c is None:
                unknown = f"{item.path}: {found.why if found else 'it was not in the job'}"
            elif found.etag is None or (there.etag or "").strip('"') != found.etag:
                unknown = f"{item.path}: it was replaced during the job"
            else:
                problems.append(
                    f"{item.path}: CRC32C {found.crc32c:08x} at rest, the manifest says {item.crc32c}"
                )
        return tuple(problems), unknown

    def _record(self, whole: Sequence[ObjectKey]) -> None:
        """Every byte of these was read: `verify`, `status` and the reports say so by the record of the scrub."""
        now = self._clock()
        records = read_records(self._store, now)
        at = int(now.timestamp())
        read_by = min(at + int(self._full_every.total_seconds()), LATEST)
        for key in whole:
            check = records.checks.get(key)
            if check is not None:
                records.checks.put(key, replace(check, checked_at=at, read_at=at, read_by=read_by))
        if records.listed_at is not None:
            write_records(self._store, records, now)

    # -- the job ---------------------------------------------------------------------------------------------
    def _read_job(self) -> tuple[ObjectInfo | None, _Job | None]:
        info = self._store.stat(JOB)
        if info is None:
            return None, None
        try:
            said = json.loads(self._store.read(JOB, 0, _MAX_JOB_BYTES))
            began_at = parse_time(said["began_at"])
            if said["schema"] != SCHEMA or began_at is None:
                raise ValueError
            job = _Job(
                str(said["token"]),
                began_at,
                object_key(said["listing"]),
                str(said["listing_etag"]),
                int(said["objects"]),
                said["job_id"],
                bool(said["compared"]),
            )
        except (ValueError, KeyError, TypeError):
            raise StorageError(
                f"{self._store.name}/{JOB} cannot be understood; delete it to begin another job"
            ) from None
        return info, job

    def _write_job(self, job: _Job, expected: ObjectInfo | None) -> ObjectInfo:
        data = job.to_bytes()
        return replace_if(
            self._store, ObjectSpec(JOB, "application/json", len(data)), data, crc32c(data), expected
        )

    def _end(self, job: _Job) -> None:
        """Say first that it was compared: without its report it would look like one that goes on."""
        data = replace(job, is_compared=True).to_bytes()
        self._store.put(ObjectSpec(JOB, "application/json", len(data)), data, crc32c(data))
        self._forget(job)

    def _forget(self, job: _Job) -> None:
        """Delete the list and the reports, which name recordings, and last the job."""
        for info in list(self._store.list(keys.AT_REST)):
            if info.key != JOB:
                self._store.delete(info.key)
        self._store.delete(JOB)
        log.info("checksum_job_ended", store=self._store.name, job_id=job.job_id)
