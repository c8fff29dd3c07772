"""What the doors open on. Built by worker.bootstrap, once per process and after the fork."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from archiving.archiver import Archiver
from archiving.discovery import Sweeper
from archiving.dispatching import Dispatcher
from archiving.reconcile import Reconciler
from archiving.scrub import Scrubber
from archiving.watching import Watcher
from ledger.base import Ledger


class Services(Protocol):
    @property
    def ledger(self) -> Ledger: ...

    @property
    def archiver(self) -> Archiver: ...

    @property
    def sweeper(self) -> Sweeper: ...

    @property
    def dispatcher(self) -> Dispatcher: ...

    @property
    def reconciler(self) -> Reconciler: ...

    @property
    def scrubber(self) -> Scrubber: ...

    @property
    def watcher(self) -> Watcher: ...


GetServices = Callable[[], Services]
