"""List the API's assets, dispatch what is new, check the destinations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from celery import Celery

from tasks.names import SWEEP
from tasks.pacing import SKIPPED, comes_too_soon
from tasks.services import GetServices


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=SWEEP, bind=True, shared=False)
    def sweep(task: Any) -> dict[str, Any]:
        """Idempotent; may run concurrently."""
        if comes_too_soon(task, services().ledger):
            return SKIPPED
        try:
            result = services().sweeper.sweep()
            services().dispatcher.dispatch()
        finally:
            services().reconciler.check_destinations()
        return asdict(result) if result else {"skipped": "another sweep is already running"}
