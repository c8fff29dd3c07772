"""`archiver doctor`: check each thing the archiver depends on, and say how to fix what is wrong."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta

from archiver.http import trust
from archiving.archiver import OpenContents
from archiving.errors import ArchiveError
from archiving.judging import Scope, judge
from hms.client import HmsClient
from hms.errors import HmsError, HmsRefused, HmsUntrusted
from hms.models import Asset, AssetStatus
from ledger.base import AssetState
from ledger.errors import LedgerError
from ledger.redis_ledger import RedisLedger
from storage_backends.base import ObjectSpec, StorageBackend, object_key
from storage_backends.errors import ObjectExists, StorageError
from tasks.watch import beats
from transfer.checksums import crc32c
from transfer.errors import TransferError
from worker.findings import Finding, Verdict
from worker.settings import Settings

MAX_SKEW = timedelta(seconds=10)
"""Management tokens are backdated by as much (100ms-api.md): beyond it new ones may be refused."""

PROBE_BYTES = 64 * 1024

API = "100ms API"

SOURCES_TRIED = 3
"""One that was deleted a moment ago, or that alone is refused, says nothing of the others."""

CERTIFICATES_HELP = "See Certificates in docs/operations.md."


def examine(
    settings: Settings,
    *,
    api: HmsClient,
    ledger: RedisLedger,
    destinations: list[StorageBackend],
    workers: Callable[[], list[str]],
    scope: Scope,
    open_contents: OpenContents,
) -> Iterator[Finding]:
    """All findings, as they are made. `workers` asks who answers over the broker; `open_contents` reads the first bytes
    of an asset, as a copy would."""
    for warning in settings.warnings:
        yield Finding("settings", Verdict.WARNING, warning, "See .env.example.")
    yield _authorities(settings)
    api_answers = False
    for finding in _api(settings, api):
        api_answers = api_answers or (finding.subject.startswith(API) and finding.verdict is Verdict.OK)
        yield finding
    if api_answers:
        yield _source(api, scope, open_contents)
    broker_is_up = True
    for finding in _ledger(ledger):
        broker_is_up = broker_is_up and finding.verdict is not Verdict.PROBLEM
        yield finding
    if broker_is_up:
        # Without a broker of its own, this may be an installation that cron runs.
        missing = Verdict.PROBLEM if settings.redis_url is not None else Verdict.WARNING
        yield from _processes(ledger, workers, missing)
    for store in destinations:
        yield from _destination(store)


def _authorities(settings: Settings) -> Finding:
    detail = f"trusted are the authorities of the system, {trust.system_store()}"
    added = trust.ca_file(settings.ca_file)
    if added is not None:
        detail += f", and those of {added.setting}, {added.path}"
    return Finding("certificates", Verdict.OK, detail)


def _api(settings: Settings, api: HmsClient) -> Iterator[Finding]:
    subject = f"{API} at {settings.hms_api_url}"
    if not settings.has_credentials:
        yield Finding(
            subject,
            Verdict.PROBLEM,
            "no credentials",
            "Set HMS_ACCESS_KEY and HMS_SECRET (100ms dashboard, Developer section) in .env.",
        )
        return
    try:
        api.check()
    except HmsUntrusted as error:
        yield Finding(subject, Verdict.PROBLEM, str(error), CERTIFICATES_HELP)
    except HmsRefused as error:
        yield Finding(
            subject,
            Verdict.PROBLEM,
            str(error),
            "Compare HMS_ACCESS_KEY and HMS_SECRET with the dashboard; check this machine's clock.",
        )
    except HmsError as error:
        yield Finding(
            subject, Verdict.PROBLEM, str(error), "Check HMS_API_URL, and that this machine reaches it."
        )
    else:
        yield Finding(subject, Verdict.OK, "answers, and takes the credentials")
    skew = api.clock_skew()
    if skew is not None and abs(skew) > MAX_SKEW:
        direction = "ahead of" if skew > timedelta(0) else "behind"
        yield Finding(
            "clock",
            Verdict.PROBLEM,
            f"this machine is {abs(skew).total_seconds():.0f} s {direction} the API's clock",
            "Turn on NTP: tokens from a wrong clock are refused.",
        )
    elif skew is not None:
        yield Finding("clock", Verdict.OK, f"within {MAX_SKEW.total_seconds():.0f} s of the API's")


def _source(api: HmsClient, scope: Scope, open_contents: OpenContents) -> Finding:
    """Whether a recording can be read: signed by the API, then asked for where 100ms keeps it."""
    subject = "source"
    failure: Exception | None = None
    try:
        page = next(iter(api.pages()), None)
        wanted = [asset for asset in page.assets if _is_wanted(asset, scope)] if page else []
        for asset in wanted[:SOURCES_TRIED]:
            try:
                open_contents(asset)
            except (HmsError, TransferError, ArchiveError, StorageError) as error:
                failure = error
            else:
                return Finding(subject, Verdict.OK, f"the first bytes of {asset.id} can be read")
    except HmsError as error:
        failure = error
    if failure is None:
        return Finding(subject, Verdict.OK, "not tried: the API lists no recording that is to be archived")
    return Finding(
        subject,
        Verdict.PROBLEM,
        f"no recording can be read: {type(failure).__name__}: {failure}",
        "Recordings come from 100ms's storage or CDN, not from the API: this machine must reach it over https. "
        + CERTIFICATES_HELP,
    )


def _is_wanted(asset: Asset, scope: Scope) -> bool:
    return asset.status == AssetStatus.COMPLETED and judge(asset, scope).verdict is AssetState.DISCOVERED


def _ledger(ledger: RedisLedger) -> Iterator[Finding]:
    subject = "broker and ledger"
    try:
        ledger.ping()
        persistence = ledger.persistence()
    except LedgerError as error:
        yield Finding(subject, Verdict.PROBLEM, str(error), "Check ARCHIVER_REDIS_URL and the server.")
        return
    yield Finding(subject, Verdict.OK, "answers")
    if persistence.sound is None:
        yield Finding(
            "persistence",
            Verdict.WARNING,
            persistence.explanation,
            "Look there yourself: appendonly yes, maxmemory-policy noeviction.",
        )
    else:
        yield Finding(
            "persistence",
            Verdict.OK if persistence.sound else Verdict.PROBLEM,
            persistence.explanation,
            "" if persistence.sound else "Set appendonly yes and maxmemory-policy noeviction on the server.",
        )


def _processes(ledger: RedisLedger, workers: Callable[[], list[str]], missing: Verdict) -> Iterator[Finding]:
    found = beats(ledger)
    if len(found) == 1:
        yield Finding("beat", Verdict.OK, f"one runs: {found[0]}")
    elif not found:
        yield Finding(
            "beat",
            missing,
            "none has been heard of in the last minutes: nothing new is being found",
            "Start it: `archiver up`, or `docker compose up -d beat`; not needed where cron calls "
            "`archiver run --once`.",
        )
    else:
        yield Finding(
            "beat",
            Verdict.WARNING,
            f"{len(found)} run: {', '.join(found)}; harmless, but each sends everything once more",
            "Keep one.",
        )
    names = workers()
    if names:
        yield Finding("workers", Verdict.OK, ", ".join(names))
    else:
        yield Finding(
            "workers",
            missing,
            "none answers over the broker",
            "Start them: `archiver up`, or `docker compose up -d worker control`; not needed where cron calls "
            "`archiver run --once`.",
        )


def _destination(store: StorageBackend) -> Iterator[Finding]:
    key = object_key(f"doctor/{uuid.uuid4().hex}.bin")
    data = uuid.uuid4().bytes * (PROBE_BYTES // 16)
    crc = crc32c(data)
    try:
        info = store.put(ObjectSpec(key, "application/octet-stream", len(data)), data, crc)
        if store.read(key, 0, len(data) + 1) != data:
            yield Finding(
                store.name,
                Verdict.PROBLEM,
                "what was written is not what is read back",
                "Do not use this destination.",
            )
            return
        by = "its own CRC32C" if info.crc32c is not None else "reading back (it keeps no CRC32C)"
        yield Finding(store.name, Verdict.OK, f"writes, reads and lists; objects are proved by {by}")
        yield _conditional(store, data, crc)
        yield _stale_uploads(store)
    except StorageError as error:
        yield Finding(
            store.name,
            Verdict.PROBLEM,
            f"{type(error).__name__}: {error}",
            "The archiver needs to write, read, list and delete here, and to abort uploads.",
        )
    finally:
        yield from _clean_up(store, key)


def _conditional(store: StorageBackend, data: bytes, crc: int) -> Finding:
    key = object_key(f"doctor/{uuid.uuid4().hex}.bin")
    spec = ObjectSpec(key, "application/octet-stream", len(data), if_absent=True)
    try:
        store.put(spec, data, crc)
        store.put(spec, data, crc)
    except ObjectExists:
        return Finding(store.name, Verdict.OK, "refuses to overwrite when asked to (conditional write)")
    finally:
        store.delete(key)
    return Finding(
        store.name,
        Verdict.WARNING,
        "overwrites even when asked not to",
        "Nothing to do: leases keep two workers apart; a rare double commit writes the same manifest twice.",
    )


def _stale_uploads(store: StorageBackend) -> Finding:
    removes = store.removes_stale_uploads()
    if removes is False and store.name.startswith("file:"):
        return Finding(store.name, Verdict.OK, "unfinished uploads are removed by the daily scrub")
    if removes is False:
        return Finding(
            store.name,
            Verdict.WARNING,
            "has no lifecycle rule for unfinished uploads, which are billed and invisible",
            "Add an AbortIncompleteMultipartUpload rule of 7 days; the daily scrub aborts ours meanwhile.",
        )
    detail = (
        "removes unfinished uploads by itself" if removes else "has nothing to tell of unfinished uploads"
    )
    return Finding(store.name, Verdict.OK, detail)


def _clean_up(store: StorageBackend, key: str) -> Iterator[Finding]:
    try:
        store.delete(object_key(key))
    except StorageError as error:
        yield Finding(
            store.name,
            Verdict.PROBLEM,
            f"cannot delete {key}: {error}",
            "Allow deletes under doctor/, or remove the probe by hand.",
        )
