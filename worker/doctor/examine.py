"""`archiver doctor`: check each thing the archiver depends on, and say how to fix what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from archiver.core.attempt.context import OpenContents
from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.destinations.checked import Destinations
from archiver.core.destinations.probing import Probe, probe
from archiver.core.errors import ArchiveError
from archiver.core.judging import Scope, judge
from archiver.core.upkeep.status import RAN_ONCE_FACT, WATCH_FACT
from archiver.hms.client import HmsClient
from archiver.hms.errors import HmsError, HmsUnauthorized, HmsUntrusted
from archiver.hms.models import Asset, AssetStatus, parse_time
from archiver.http import trust
from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerError
from archiver.ledger.models import AssetState
from archiver.ledger.redis.ledger import RedisLedger
from archiver.transfer.errors import TransferError
from storage_backends.base import StorageBackend
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    DestinationFull,
    StorageError,
    TransientStorageError,
)
from tasks.watch import beats
from worker.celery_setup.processes import ARCHIVE_NODE, CONTROL_NODE
from worker.doctor.findings import Finding, Verdict
from worker.doctor.identity import identity_finding
from worker.settings import Settings
from worker.views.text import size, span

MAX_SKEW = timedelta(seconds=10)
"""Management tokens are backdated by as much (100ms-api.md): beyond it new ones may be refused."""

HEARD_WITHIN = timedelta(minutes=2)
"""Beat has the control worker watch every minute."""

MIN_FREE_BYTES, LOW_FREE_BYTES, MIN_FREE_FILES = 256 * 2**20, 5 * 2**30, 1000


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
    identities: Destinations | None = None,
) -> Iterator[Finding]:
    """All findings, as they are made. `workers` asks who answers over the broker; `open_contents` reads the first bytes
    of an asset, as a copy would; `identities` tells whether `destinations` are those that the ledger knows."""
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
        yield from _processes(ledger, workers, has_broker=settings.redis_url is not None)
    yield from _room("state directory", settings.state_dir)
    for store in destinations:
        found = identity_finding(store.name, identities) if identities is not None else None
        if found is not None:
            yield found
        if found is None or found.verdict is not Verdict.PROBLEM:
            yield from _destination(store, ledger)


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
    except HmsUnauthorized as error:
        yield Finding(
            subject,
            Verdict.PROBLEM,
            str(error),
            "Compare HMS_ACCESS_KEY and HMS_SECRET with the dashboard.",
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
            "Turn on NTP: logs are dated wrongly, and stores refuse requests that are.",
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
    except LedgerError as error:
        yield Finding(subject, Verdict.PROBLEM, str(error), "Check ARCHIVER_REDIS_URL and the server.")
    else:
        yield Finding(subject, Verdict.OK, "answers, and takes what is written")
    try:
        persistence = ledger.persistence()
    except LedgerError:
        return  # it is away: said above
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
            ""
            if persistence.sound
            else "Set appendonly yes and maxmemory-policy noeviction; give it disk and memory.",
        )


NOT_FOR_CRON = "not needed where cron calls `archiver run --once`."


def _processes(ledger: Facts, workers: Callable[[], list[str]], *, has_broker: bool) -> Iterator[Finding]:
    """`has_broker`: one is configured, as for processes of their own."""
    names = workers()
    missing = Verdict.PROBLEM if names or _should_run(ledger, has_broker) else Verdict.WARNING
    control = [name for name in names if name.startswith(f"{CONTROL_NODE}@")]
    archive = [name for name in names if name.startswith(f"{ARCHIVE_NODE}@")]
    others = [
        name for name in names if name not in control + archive
    ]  # somebody's own node names: they may do either
    for subject, found, service in (
        ("control worker", control or others, "control"),
        ("archive worker", archive or others, "worker"),
    ):
        if found:
            yield Finding(subject, Verdict.OK, ", ".join(found))
        else:
            yield Finding(
                subject,
                missing,
                "none answers over the broker: "
                + ("nothing is found, sent or watched" if service == "control" else "nothing is copied"),
                f"Start it: `archiver up`, or `docker compose up -d {service}`; {NOT_FOR_CRON}",
            )
    yield _beat(ledger, missing, control_answers=bool(control or others))


def _should_run(ledger: Facts, has_broker: bool) -> bool:
    """Whether this installation is run by workers and beat, rather than by cron."""
    watched, ran_once = (ledger.recall(fact) or {} for fact in (WATCH_FACT, RAN_ONCE_FACT))
    watched_at, ran_once_at = parse_time(watched.get("at")), parse_time(ran_once.get("at"))
    if ran_once_at is not None and (watched_at is None or watched_at < ran_once_at):
        return False
    return has_broker or watched_at is not None


def _beat(ledger: Facts, missing: Verdict, *, control_answers: bool) -> Finding:
    """Beat itself answers nothing: it is known by what the control worker did when it was asked to."""
    subject = "beat"
    found, noted = beats(ledger), ledger.recall(WATCH_FACT) or {}
    heard_at = parse_time(noted.get("at"))
    silence = ledger.now() - heard_at if heard_at is not None else None
    if not control_answers:
        return Finding(
            subject,
            missing,
            "it cannot be told whether it runs: the control worker, which hears it, does not answer",
            f"Start the control worker first; {NOT_FOR_CRON}",
        )
    if silence is not None and silence < -CLOCK_TOLERANCE:
        return Finding(
            subject,
            Verdict.PROBLEM,
            f"it was heard {span(silence)} in the future: the clock of the ledger's server was set back",
            "Set that clock, and keep NTP on.",
        )
    if not found or silence is None or silence > HEARD_WITHIN:
        ago = f"for {span(silence)}" if silence is not None else "yet"
        return Finding(
            subject,
            missing,
            f"none has been heard of {ago}: it is dead, or the control worker is stuck; nothing new is being found",
            f"Start it: `archiver up`, or `docker compose up -d beat`; if it runs, restart the control worker; "
            f"{NOT_FOR_CRON}",
        )
    if len(found) > 1:
        return Finding(
            subject,
            Verdict.WARNING,
            f"{len(found)} were heard of in the last minutes: {', '.join(found)}; harmless, but each sends everything "
            "once more",
            "Keep one. One that was restarted just now is told twice for 3 minutes.",
        )
    return Finding(subject, Verdict.OK, f"one runs: {found[0]}, heard {span(silence)} ago")


def _room(subject: str, folder: Path) -> Iterator[Finding]:
    """Whether the disk under `folder` has room, for bytes and for files."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if existing is None:
        return
    disk = os.statvfs(existing)
    free_bytes, total_bytes = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    files_are_short = disk.f_files > 0 and disk.f_favail < MIN_FREE_FILES
    if free_bytes >= LOW_FREE_BYTES and not files_are_short:
        yield Finding(subject, Verdict.OK, f"{size(free_bytes)} of {size(total_bytes)} are free at {folder}")
        return
    full = free_bytes < MIN_FREE_BYTES or files_are_short
    what = f"only {disk.f_favail:,} more files" if files_are_short else f"only {size(free_bytes)}"
    yield Finding(
        subject,
        Verdict.PROBLEM if full else Verdict.WARNING,
        f"{what} of {size(total_bytes)} are free at {folder}",
        "Free some space, or move it to a larger disk.",
    )


def _destination(store: StorageBackend, ledger: Facts | None = None) -> Iterator[Finding]:
    found = probe(store, ledger)
    error = found.error
    if found.reads_back is False:
        what = "what was written is not what is read back"
        yield Finding(store.name, Verdict.PROBLEM, what, "Do not use this destination.")
    elif error is None:
        if store.name.startswith("file://"):
            yield from _room(store.name, Path(store.name.removeprefix("file://")))
        yield Finding(store.name, Verdict.OK, _what_works(found))
        if found.creates_only is not None:
            yield _conditional(store, refuses=found.creates_only)
        try:
            yield _stale_uploads(store)
        except StorageError as asked:
            error = asked
    if error is not None:
        yield Finding(store.name, Verdict.PROBLEM, f"{type(error).__name__}: {error}", _remedy(error))
    if found.left is not None:
        yield Finding(
            store.name,
            Verdict.WARNING,
            f"cannot delete {found.left}: {found.left_because}",
            "Allow deletes under doctor/. Where nothing may be deleted, one such probe is left a day at most.",
        )


def _what_works(found: Probe) -> str:
    if found.stored is None:
        return (
            "begins uploads; nothing was written, for nothing can be deleted here and one probe a day is left"
        )
    by = "its own CRC32C" if found.stored.crc32c is not None else "reading back (it keeps no CRC32C)"
    return f"writes and reads; objects are proved by {by}"


def _remedy(error: StorageError) -> str:
    match error:
        case DestinationFull():
            return "Disk or quota is full: free some space, or raise the quota. Nothing is saved until then."
        case BucketMissing():
            return "Create it, mount it, or mend ARCHIVER_DESTINATIONS."
        case AccessDenied():
            return "It needs to write, read, list and delete here: see The bucket in docs/operations.md."
        case TransientStorageError():
            return "Check the endpoint in ARCHIVER_DESTINATIONS, and that this machine reaches it."
        case _:
            return "The archiver needs to write, read, list and delete here, and to abort uploads."


def _conditional(store: StorageBackend, *, refuses: bool) -> Finding:
    if refuses:
        return Finding(store.name, Verdict.OK, "refuses to overwrite when asked to (conditional write)")
    return Finding(
        store.name,
        Verdict.WARNING,
        "overwrites even when asked not to",
        "Nothing to do: leases keep two workers apart; a rare double commit writes the same manifest twice.",
    )


def _stale_uploads(store: StorageBackend) -> Finding:
    ask: Callable[[], bool | None] | None = getattr(
        store, "removes_stale_uploads", None
    )  # storage_backends/optional
    if ask is None:
        return Finding(store.name, Verdict.OK, "unfinished uploads are removed by the daily scrub")
    removes = ask()
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
