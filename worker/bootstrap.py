"""All wiring, by plain constructor arguments; `worker.ledger` builds the ledger. Nothing else reads settings, opens a
client or makes a thread pool."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded

from archiver.core.attempt.archiver import Archiver
from archiver.core.attempt.context import EngineFactory, OpenContents, Rules
from archiver.core.attempt.decisions import RetryRules
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.contents.opening import ContentsOpener, OpeningRules
from archiver.core.contents.thumbnails import webhook as webhook_thumbnails
from archiver.core.contents.zip.zipped import ZipMode
from archiver.core.destinations.guarded import guarded
from archiver.core.destinations.probing import tell_time
from archiver.core.destinations.write_probe import WriteProbe
from archiver.core.judging import Scope
from archiver.core.records.session_records import SessionRecords
from archiver.core.records.statements import SigningKey
from archiver.core.replication.repairer import Repairer
from archiver.core.replication.replicator import Replicator
from archiver.core.restore.drill import Driller, DrillRules
from archiver.core.upkeep.announced import Announcements, MissedWebhooks
from archiver.core.upkeep.cataloguing import Cataloguer
from archiver.core.upkeep.dispatch import Dispatcher, Send, Waiting
from archiver.core.upkeep.erasing import Eraser
from archiver.core.upkeep.expiring import Expirer
from archiver.core.upkeep.limited_reads import limited
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.scrub import Scrubber
from archiver.core.upkeep.scrub_plan import ScrubRules
from archiver.core.upkeep.sessions import SessionKeeper
from archiver.core.upkeep.stating import Stater
from archiver.core.upkeep.sweep import Sweeper
from archiver.hms.client import HmsClient
from archiver.http import trust
from archiver.http.options import Timeouts
from archiver.ledger.base import Ledger
from archiver.ledger.clock import LedgerClock
from archiver.ledger.models import Row
from archiver.limits.rate_limit import RateLimit
from archiver.retry_policy import ATTEMPT
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.bandwidth import UsualSize
from archiver.transfer.base import Engine, UploadJournal
from archiver.transfer.engine import TransferEngine
from archiver.transfer.errors import Stopped
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from storage_backends.base import StorageBackend
from storage_backends.registry import open_destinations
from tasks import archive_asset, dispatch, drill, names, reconcile, scrub, sweep, watch
from tasks.soft_task import SoftTask
from worker.alerts.dead_mans_switch import DeadMansSwitch
from worker.celery_setup.config import celery_settings
from worker.celery_setup.processes import ARCHIVE_QUEUE, URGENT_QUEUE
from worker.celery_setup.schedule import beat_schedule
from worker.celery_setup.sighup import on_sighup
from worker.celery_setup.waiting_messages import waiting_messages
from worker.credentials import Credentials
from worker.identities import build_identities, workspace_in
from worker.ledger import build_ledger, build_watcher
from worker.limits import api_limit, bandwidth_of, copy_limit, drill_limit, replicate_limit, scrub_limit
from worker.memory import memory_budget
from worker.services import AppServices, ServicesPerProcess
from worker.settings import Settings
from worker.source_access import SourceAccess
from worker.tallies import TallyFlusher
from worker.time_stamps import TimeStampAuthority
from worker.tokens import ReportedTokens, token_provider

DISTRIBUTION = "recording-archiver"
SCRATCH = "archiver-drill"
"""Name of the folder that a drill may empty."""

_REBUILD_READERS, _READERS_OF_DIRECTORIES = 16, 2
"""Assets read at the same time after the ledger was lost: waiting for a bucket takes nearly all of the time. A
directory answers at once, and more threads only take turns."""


def build_services(
    settings: Settings,
    *,
    redis_url: str,
    send: Send,
    stop_requested: Callable[[], bool] = lambda: False,
    time_is_up: type[Exception] = Stopped,
    refused: Callable[[], None] = lambda: None,
    waiting: Waiting | None = None,
) -> AppServices:
    """Build every service of one process. Connects to nothing yet. `send` sends the message for one asset;
    `waiting` reads which messages wait; `time_is_up` is what a time limit raises in the middle of a copy; `refused` is
    called when the API does not accept the credentials."""
    authorities = trust.authorities(settings.ca_file)
    tokens = ReportedTokens(token_provider(settings), refused)
    ledger = build_ledger(settings, redis_url)
    api = HmsClient(settings.hms_api_url, tokens, authorities=authorities, limit=api_limit(settings, ledger))
    clock = LedgerClock(ledger)
    stores = open_destinations(settings.destinations)
    identities = build_identities(settings, ledger, stores, clock)
    destinations = guarded(stores, identities)
    source_access = SourceAccess(settings.source_access)
    memory = memory_budget(settings.transfer_memory_bytes)
    open_contents = _build_opener(settings, api, ledger, source_access, authorities, memory)
    scope = build_scope(settings)
    engine = _engine_factory(settings, memory, clock, copy_limit(settings, ledger, clock))
    eraser = Eraser(
        ledger=ledger,
        destinations=destinations,
        clock=clock,
        key_template=settings.key_template,
        session_data=SessionRecords(),
    )
    expirer = Expirer(
        ledger=ledger, destinations=destinations, eraser=eraser, terms=settings.keep_terms, clock=clock
    )
    is_local = all(store.name.startswith("file:") for store in destinations)
    reconciler = Reconciler(
        ledger=ledger,
        destinations=destinations,
        scope=scope,
        clock=clock,
        identities=identities,
        events_wanted=settings.event_url is not None,
        eraser=eraser,
        readers=_READERS_OF_DIRECTORIES if is_local else _REBUILD_READERS,
        key_template=settings.key_template,
        expirer=expirer,
    )
    return AppServices(
        api=api,
        ledger=ledger,
        clock=clock,
        stores=stores,
        destinations=destinations,
        identities=identities,
        archiver=_build_archiver(
            settings,
            api,
            ledger,
            destinations,
            open_contents,
            scope,
            clock,
            engine,
            stop_requested,
            time_is_up,
        ),
        replicator=_build_replicator(settings, ledger, destinations, clock, memory, stop_requested),
        sweeper=Sweeper(
            api=api,
            ledger=ledger,
            scope=scope,
            clock=clock,
            rebuild=reconciler.reconcile,
            workspace=workspace_in(settings),
        ),
        dispatcher=Dispatcher(
            ledger=ledger,
            send=send,
            clock=clock,
            window=settings.dispatch_window,
            urgent_within=settings.at_risk,
            waiting=waiting,
        ),
        reconciler=reconciler,
        session_keeper=SessionKeeper(
            api=api, ledger=ledger, destinations=destinations, clock=clock, wanted=settings.keep_sessions
        ),
        missed_webhooks=MissedWebhooks(
            Announcements(api=api, ledger=ledger, scope=scope, clock=clock, workspace=workspace_in(settings)),
            history=api,
        ),
        eraser=eraser,
        expirer=expirer,
        scrubber=Scrubber(
            ledger=ledger,
            destinations=limited(destinations, scrub_limit(settings, ledger, clock)),
            clock=clock,
            rules=build_scrub_rules(settings),
            term_is_over=expirer.term_is_over,
        ),
        driller=Driller(
            ledger=ledger,
            destinations=limited(destinations, drill_limit(settings, ledger, clock)),
            clock=clock,
            rules=build_drill_rules(settings),
            term_is_over=expirer.term_is_over,
        ),
        stater=_build_stater(settings, ledger, destinations, clock, authorities),
        cataloguer=Cataloguer(
            ledger=ledger, destinations=destinations, clock=clock, wanted=settings.catalogue
        ),
        watcher=build_watcher(settings, ledger),
        write_probe=WriteProbe(
            ledger=ledger, destinations=destinations, clock=clock, machine=socket.gethostname()
        ),
        dead_mans_switch=DeadMansSwitch(settings.heartbeat_url, authorities),
        source_access=source_access,
        open_contents=open_contents,
        tallies=TallyFlusher(ledger),
        workspace=workspace_in(settings),
    )


def _build_stater(
    settings: Settings,
    ledger: Ledger,
    destinations: Sequence[StorageBackend],
    clock: Callable[[], datetime],
    authorities: Path,
) -> Stater:
    key, url = settings.statement_key, settings.statement_tsa_url
    return Stater(
        ledger=ledger,
        destinations=destinations,
        key=SigningKey(key.get_secret_value()) if key is not None else None,
        clock=clock,
        retention=settings.retention,
        version=version(DISTRIBUTION),
        stamps=None if url is None else lambda: closing(TimeStampAuthority(url, authorities)),
    )


def build_app(settings: Settings) -> Celery:
    """Build the Celery application with all its tasks. Services are built in each process that runs a task."""
    if settings.redis_url is None:
        raise RuntimeError(
            "ARCHIVER_REDIS_URL is not set: Celery's processes need a broker. `archiver up` brings its own; "
            "otherwise set it to your Redis or Valkey, such as redis://localhost:6379/0"
        )
    redis_url = settings.redis_url.get_secret_value()
    app: Celery[Any] = Celery("archiver", set_as_current=False, task_cls=SoftTask)
    app.conf.update(
        celery_settings(
            broker_url=redis_url,
            key_prefix=settings.redis_key_prefix,
            broker_authorities=trust.authorities(settings.ca_file),
            concurrency=settings.worker_concurrency,
            beat_schedule=beat_schedule(
                sweep_every=settings.sweep_every,
                dispatch_every=settings.dispatch_every,
                beat_name=f"{socket.gethostname()}:{os.getpid()}",  # in beat's own process: itself
            ),
        )
    )

    def send(row: Row, urgent: bool) -> None:
        app.send_task(
            names.ARCHIVE_ASSET,
            kwargs={"asset_id": row.asset_id, "asset_type": row.type},
            queue=URGENT_QUEUE if urgent else ARCHIVE_QUEUE,
        )

    credentials = Credentials(settings)
    services = ServicesPerProcess(
        lambda current: build_services(
            current,
            redis_url=redis_url,
            send=send,
            time_is_up=SoftTimeLimitExceeded,
            refused=credentials.note_refusal,
            waiting=partial(
                waiting_messages, redis_url, settings.redis_key_prefix, trust.authorities(settings.ca_file)
            ),
        ),
        credentials,
    )
    on_sighup(app, credentials.ask)
    signals.task_prerun.connect(services.begin_task, weak=False)
    signals.task_postrun.connect(services.end_task, weak=False)
    signals.worker_process_shutdown.connect(services.close, weak=False)
    for task in (archive_asset, sweep, dispatch, watch, reconcile, scrub, drill):
        task.register(app, services.get)
    return app


def build_scope(settings: Settings) -> Scope:
    return Scope(
        retention=settings.retention,
        types=settings.types,
        rooms=settings.rooms,
        own_paths=settings.own_paths,
    )


def build_scrub_rules(settings: Settings) -> ScrubRules:
    return ScrubRules(
        every=timedelta(days=settings.scrub_days),
        full_every=timedelta(days=settings.scrub_full_days),
        retention=settings.retention,
        bytes_a_day=settings.scrub_bytes_a_day,
        urgent_within=settings.at_risk,
    )


def build_drill_rules(settings: Settings) -> DrillRules:
    return DrillRules(
        assets=settings.drill_assets,
        every=timedelta(days=settings.drill_interval_days),
        scratch=(settings.drill_dir or settings.state_dir) / SCRATCH,
        scratch_bytes=settings.drill_bytes,
    )


def _build_opener(
    settings: Settings,
    api: HmsClient,
    ledger: Ledger,
    source_access: SourceAccess,
    authorities: Path,
    memory: MemoryBudget,
) -> OpenContents:
    http = HttpClient(
        AddressPolicy(settings.allow_private_sources),
        timeouts=Timeouts(silence=settings.source_timeout),
        ca_file=authorities,
        max_unknown_bytes=settings.max_unsized_bytes,
    )
    return ContentsOpener(
        api,
        http,
        OpeningRules(zip_mode=ZipMode(settings.vod_zip), sign_for=settings.presign),
        webhook_thumbnails=partial(webhook_thumbnails.recall, ledger),
        source_store=source_access,
        memory=memory,
    )


def _engine_factory(
    settings: Settings, memory: MemoryBudget, clock: LedgerClock, limit: RateLimit | None
) -> EngineFactory:
    usual = UsualSize()

    def engine(journal: UploadJournal, heartbeat: Heartbeat) -> Engine:
        return TransferEngine(
            memory,
            part_bytes=settings.part_bytes,
            connections=settings.connections,
            uploads=settings.destination_connections or settings.connections,
            journal=journal,
            on_bytes=heartbeat.moved,
            should_stop=heartbeat.check,
            should_yield=heartbeat.should_yield,
            bandwidth=bandwidth_of(limit, usual, heartbeat, clock, settings.at_risk),
        )

    return engine


def _build_replicator(
    settings: Settings,
    ledger: Ledger,
    destinations: list[StorageBackend],
    clock: LedgerClock,
    memory: MemoryBudget,
    stop_requested: Callable[[], bool],
) -> Replicator:
    return Replicator(
        ledger=ledger,
        destinations=destinations,
        repairer=Repairer(
            ledger=ledger,
            destinations=destinations,
            engine=_engine_factory(settings, memory, clock, None),
            lease=settings.lease,
            lease_renew=settings.lease_renew,
            clock=clock,
            read_bytes=settings.part_bytes,
        ),
        clock=clock,
        concurrency=settings.worker_concurrency,
        bytes_a_day=settings.replicate_bytes_a_day,
        before_read=replicate_limit(settings, ledger, clock),
        stop_requested=stop_requested,
    )


def _build_archiver(
    settings: Settings,
    api: HmsClient,
    ledger: Ledger,
    destinations: list[StorageBackend],
    open_contents: OpenContents,
    scope: Scope,
    clock: LedgerClock,
    engine: EngineFactory,
    stop_requested: Callable[[], bool],
    time_is_up: type[Exception],
) -> Archiver:
    return Archiver(
        api=api,
        ledger=ledger,
        destinations=destinations,
        open_contents=open_contents,
        engine=engine,
        rules=Rules(
            scope=scope,
            retry=RetryRules(
                settings.mismatch_attempts,
                replace(ATTEMPT, base=settings.retry_base, cap=settings.retry_max),
            ),
            key_template=settings.key_template,
            lease=settings.lease,
            lease_renew=settings.lease_renew,
            archiver_version=version(DISTRIBUTION),
            near_deadline=settings.at_risk,
            quorum=settings.quorum,
        ),
        clock=clock,
        stop_requested=stop_requested,
        time_is_up=time_is_up,
        time_at=lambda store: tell_time(store, ledger),
        workspace=workspace_in(settings),
    )
