"""What the tasks need. Built by worker.bootstrap once per process, after the fork."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from archiver.core.attempt.archiver import Archiver
from archiver.core.destinations.write_probe import WriteProbe
from archiver.core.replication.replicator import Replicator
from archiver.core.restore.drill import Driller
from archiver.core.upkeep.announced import MissedWebhooks
from archiver.core.upkeep.cataloguing import Cataloguer
from archiver.core.upkeep.dispatch import Dispatcher
from archiver.core.upkeep.expiring import Expirer
from archiver.core.upkeep.reconcile import Reconciler
from archiver.core.upkeep.scrub import Scrubber
from archiver.core.upkeep.sessions import SessionKeeper
from archiver.core.upkeep.stating import Stater
from archiver.core.upkeep.sweep import Sweeper
from archiver.core.upkeep.watch import Watcher
from archiver.ledger.base import Facts


class DeadMansSwitch(Protocol):
    """Tells somebody else that sweeps go on. Never raises."""

    def start(self) -> None: ...

    def success(self) -> None: ...

    def fail(self) -> None: ...


class Services(Protocol):
    @property
    def ledger(self) -> Facts: ...

    @property
    def archiver(self) -> Archiver: ...

    @property
    def sweeper(self) -> Sweeper: ...

    @property
    def dispatcher(self) -> Dispatcher: ...

    @property
    def reconciler(self) -> Reconciler: ...

    @property
    def expirer(self) -> Expirer: ...

    @property
    def session_keeper(self) -> SessionKeeper: ...

    @property
    def missed_webhooks(self) -> MissedWebhooks: ...

    @property
    def replicator(self) -> Replicator: ...

    @property
    def scrubber(self) -> Scrubber: ...

    @property
    def driller(self) -> Driller: ...

    @property
    def stater(self) -> Stater: ...

    @property
    def cataloguer(self) -> Cataloguer: ...

    @property
    def watcher(self) -> Watcher: ...

    @property
    def write_probe(self) -> WriteProbe: ...

    @property
    def dead_mans_switch(self) -> DeadMansSwitch: ...

    def measure_clocks(self) -> None:
        """Compare the destinations' clocks with the ledger's. Raises LedgerError."""
        ...

    def require_own_ledger(self) -> None:
        """Raises LedgerOfAnotherWorkspace when a second installation has taken the first one's ledger."""
        ...


GetServices = Callable[[], Services]
