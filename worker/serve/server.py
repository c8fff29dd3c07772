"""Wire and run `archiver serve`."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.routing import Route

from archiver.core.upkeep.announced import Announcements
from archiver.hms.client import HmsClient
from archiver.http import trust
from archiver.http.tally import Tally
from archiver.ledger.clock import LedgerClock
from archiver.ledger.redis.ledger import RedisLedger
from storage_backends.destination_url import parse_destination
from worker.alerts.alerter import Alerter
from worker.alerts.channels import OpenChannel
from worker.bootstrap import build_scope
from worker.events.sender import EventSender
from worker.identities import workspace_in
from worker.ledger import build_ledger, build_watcher
from worker.limits import api_limit
from worker.serve.health import Health, no_progress
from worker.serve.listener import Listener, listen
from worker.serve.lookups import Lookups
from worker.serve.metrics import LedgerCollector, Metrics
from worker.serve.webhooks import Receiver
from worker.settings import Settings
from worker.tallies import TallyFlusher
from worker.tokens import token_provider

log = structlog.get_logger(__name__)

SWITCH_SECONDS = 0.001
"""How long the event loop waits for a thread that computes: a fifth of Python's default."""


def serve(
    settings: Settings,
    *,
    redis_url: str,
    channels: list[OpenChannel],
    on_start: Callable[[str, str], None] = lambda _main, _metrics: None,
) -> None:
    """Run until SIGTERM or SIGINT. Starts whether or not the ledger answers. `on_start` is given the addresses of the
    main listener and of the metrics. Raises SettingsError for an address that cannot be listened on."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with ExitStack() as stack:
        main_socket = stack.enter_context(
            closing(listen(settings.serve_address, settings.serve_port, "ARCHIVER_SERVE"))
        )
        metrics_socket = stack.enter_context(
            closing(listen(settings.metrics_address, settings.metrics_port, "ARCHIVER_METRICS"))
        )
        ledger = stack.enter_context(closing(build_ledger(settings, redis_url)))
        authorities = trust.authorities(settings.ca_file)
        api = stack.enter_context(
            closing(
                HmsClient(
                    settings.hms_api_url,
                    token_provider(settings),
                    authorities=authorities,
                    limit=api_limit(settings, ledger),
                )
            )
        )
        destinations = [parse_destination(text).name for text in settings.destinations]
        clock = LedgerClock(ledger)
        alerter = Alerter(
            ledger=ledger,
            summarize=build_watcher(settings, ledger).summary,
            channels=channels,
            digest_hour=settings.alert_digest_hour,
        )
        announcements = Announcements(
            api=api,
            ledger=ledger,
            scope=build_scope(settings),
            clock=clock,
            workspace=workspace_in(settings),
        )
        lookups = stack.enter_context(closing(Lookups(announcements.enter)))
        tally = Tally()
        for flusher in (TallyFlusher(ledger, tally), TallyFlusher(ledger)):
            flusher.start()
            stack.enter_context(closing(flusher))
        health = Health(
            looked_at=lambda: alerter.looked_at,
            no_progress=partial(
                no_progress,
                ledger,
                clock,
                at_risk_within=settings.at_risk,
                sweep_every=settings.sweep_every,
            ),
        )
        receiver = Receiver(
            secret=settings.webhook_secret,
            header=settings.webhook_header,
            take=announcements.take,
            look_up=lookups.add,
            tally=tally,
        )
        metrics = Metrics(
            LedgerCollector(
                ledger,
                destinations=destinations,
                alerts=alerter.firing,
                at_risk_within=settings.at_risk,
                sweep_every=settings.sweep_every,
            )
        )
        stopped = threading.Event()
        stack.callback(stopped.set)
        if (sender := _event_sender(settings, ledger, destinations, authorities)) is not None:
            stack.enter_context(closing(sender))
            _start("events", sender.run, stopped)
        main = Listener(_main_app(health, receiver), main_socket)
        scraped = Listener(Starlette(routes=[Route("/metrics", metrics.metrics)]), metrics_socket)
        _start("alerts", alerter.run, stopped)
        _start("lookups", lookups.run)
        on_start(main.url, f"{scraped.url}/metrics")
        log.info("serving", address=main.url, metrics=scraped.url)
        asyncio.run(_run([main, scraped]))


def _event_sender(
    settings: Settings, ledger: RedisLedger, destinations: Sequence[str], authorities: Path
) -> EventSender | None:
    if settings.event_url is None or settings.event_secret is None:
        return None
    return EventSender(
        ledger,
        url=settings.event_url,
        secret=settings.event_secret,
        destinations=destinations,
        authorities=authorities,
    )


def _start(name: str, run: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=run, args=arguments, name=name, daemon=True).start()


def _main_app(health: Health, receiver: Receiver) -> Starlette:
    return Starlette(
        routes=[
            Route("/healthz", health.live),
            Route("/readyz", health.ready),
            Route("/webhooks/100ms", receiver.receive, methods=["POST"]),
        ]
    )


async def _run(listeners: list[Listener]) -> None:
    """Until a signal, or until one of them ends: then all do."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for each in listeners:
            each.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    running = [asyncio.create_task(each.run_until_stopped()) for each in listeners]
    for each in running:
        each.add_done_callback(lambda _: stop())
    await asyncio.gather(*running)
