"""Queue the assets that are due."""

from __future__ import annotations

from typing import Any

from celery import Celery

from tasks.names import DISPATCH
from tasks.services import GetServices
from tasks.throttle import SKIPPED, comes_too_soon


def register(app: Celery, services: GetServices) -> None:
    # No events: it runs so often that Flower would show little else.
    @app.task(name=DISPATCH, bind=True, shared=False, send_events=False)
    def dispatch(task: Any) -> dict[str, Any]:
        """Idempotent; may run concurrently."""
        if comes_too_soon(task, services().ledger):
            return SKIPPED
        return {"sent": services().dispatcher.dispatch()}
