"""The services of one process, and their lifetime: built after the fork, at first use, closed with the process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from archiver.core.attempt.archiver import Archiver
from archiver.core.attempt.context import OpenContents
from archiver.core.destinations import breaker
from archiver.core.destinations.checked import Destinations
from archiver.core.destinations.write_probe import WriteProbe
from archiver.core.replication.replicator import Replicator
from archiver.core.restore.drill import Driller
from archiver.core.upkeep import store_clocks
from archiver.core.upkeep.announced import MissedWebhooks
from archiver.core.upkeep.cataloguing import Cataloguer
from archiver.core.upkeep.dispatch import Dispatcher
from archiver.core.upkeep.erasing import Eraser
from archiver.core.upkeep.expiring import Expirer
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.scrub import Scrubber
from archiver.core.upkeep.sessions import SessionKeeper
from archiver.core.upkeep.stating import Stater
from archiver.core.upkeep.sweep import Sweeper
from archiver.core.upkeep.watch import Watcher
from archiver.core.workspaces import require_ours
from archiver.hms.client import HmsClient
from archiver.ledger.clock import LedgerClock
from archiver.ledger.errors import LedgerError
from archiver.ledger.redis.ledger import RedisLedger
from storage_backends.base import StorageBackend
from worker.alerts.dead_mans_switch import DeadMansSwitch
from worker.credentials import Credentials
from worker.memory import tune_garbage_collector, tune_malloc
from worker.settings import Settings
from worker.source_access import SourceAccess
from worker.tallies import TallyFlusher


@dataclass(frozen=True, slots=True)
class AppServices:
    """The services of one process. Built after the fork; closed with the process. `destinations` wrap `stores` with a
    check that each is the one that the ledger knows."""

    api: HmsClient
    ledger: RedisLedger
    clock: LedgerClock
    stores: list[StorageBackend]
    destinations: list[StorageBackend]
    identities: Destinations
    archiver: Archiver
    sweeper: Sweeper
    dispatcher: Dispatcher
    reconciler: Reconciler
    eraser: Eraser
    expirer: Expirer
    replicator: Replicator
    missed_webhooks: MissedWebhooks
    session_keeper: SessionKeeper
    scrubber: Scrubber
    driller: Driller
    stater: Stater
    cataloguer: Cataloguer
    watcher: Watcher
    write_probe: WriteProbe
    dead_mans_switch: DeadMansSwitch
    source_access: SourceAccess
    open_contents: OpenContents
    tallies: TallyFlusher
    workspace: str | None  # of the credentials; None when they do not tell

    def require_own_ledger(self) -> None:
        """Call before changing what the ledger holds. Raises LedgerOfAnotherWorkspace, LedgerError."""
        require_ours(self.ledger, self.workspace)

    def measure_clocks(self) -> None:
        """Compare the destinations' clocks with the ledger's. Raises LedgerError."""
        store_clocks.measure(self.ledger, self.destinations, self.clock)

    def close(self) -> None:
        self.api.close()
        self.tallies.close()
        self.ledger.close()
        for store in self.destinations:
            store.close()
        self.source_access.close()


class ServicesPerProcess:
    """Builds the services at first use in each process; never shares them across a fork. Rebuilds them between tasks
    when the credentials changed; a task that runs keeps those it began with."""

    def __init__(self, build: Callable[[Settings], AppServices], credentials: Credentials) -> None:
        self._build = build
        self._credentials = credentials
        self._lock = threading.Lock()
        self._made: tuple[int, AppServices] | None = None
        self._running = 0
        self._retired: list[AppServices] = []

    def get(self) -> AppServices:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = (os.getpid(), self._started(self._credentials.current()))
                tune_garbage_collector()
                tune_malloc()
            return self._made[1]

    def begin_task(self, **_signal: object) -> None:
        """Call before each task: takes over other credentials."""
        with self._lock:
            if self._made is not None and self._made[0] == os.getpid():
                self._renew(self._made[1])
            self._running += 1

    def end_task(self, **_signal: object) -> None:
        """Call after each task: closes what no task uses any more."""
        with self._lock:
            self._running -= 1
            self._close_retired()

    def close(self, **_signal: object) -> None:
        with self._lock:
            self._running = 0
            self._close_retired()
            if self._made is not None and self._made[0] == os.getpid():
                self._made[1].close()
                self._made = None

    def _renew(self, used: AppServices) -> None:
        machine = socket.gethostname()
        renewed = self._credentials.renewed(lambda: _is_refused(used, machine))
        if renewed is None:
            return
        self._made = (os.getpid(), self._started(renewed))
        self._retired.append(used)
        names = [breaker.API, *(store.name for store in used.stores)]
        with suppress(LedgerError):
            breaker.close_on(self._made[1].ledger, names, machine)
        self._close_retired()

    def _started(self, settings: Settings) -> AppServices:
        services = self._build(settings)
        services.tallies.start()
        return services

    def _close_retired(self) -> None:
        while self._retired and not self._running:
            self._retired.pop().close()


def _is_refused(services: AppServices, machine: str) -> bool:
    """Whether a breaker is not closed on `machine`. A pause by a person does not count. False without the ledger."""
    with suppress(LedgerError):
        known = breaker.opened_on(breaker.not_closed(services.ledger, services.clock()), machine)
        return any(each.code != breaker.PAUSED for each in known.values())
    return False
