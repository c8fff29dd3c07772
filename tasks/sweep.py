"""List the API's assets, dispatch what is new, check the destinations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from celery import Celery

from archiver.core.health import find
from tasks.names import SWEEP
from tasks.services import GetServices
from tasks.throttle import SKIPPED, comes_too_soon

_SILENT = ("workers_are_silent", "alerts_are_silent")
"""Nothing copies, or nobody is told: findings that somebody else must tell of."""


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=SWEEP, bind=True, shared=False)
    def sweep(task: Any) -> dict[str, Any]:
        """Idempotent; may run concurrently."""
        if comes_too_soon(task, services().ledger):
            return SKIPPED
        switch = services().dead_mans_switch
        switch.start()
        try:
            result = services().sweeper.sweep()
            services().dispatcher.dispatch()
        except BaseException:
            switch.fail()
            raise
        finally:
            services().reconciler.check_destinations()
        services().session_keeper.keep_at_once()
        if result is not None:
            silent = any(each.id in _SILENT for each in find(services().watcher.summary()))
            (switch.fail if silent else switch.success)()
        return asdict(result) if result else {"skipped": "another sweep is already running"}
