"""Queue the assets that are due."""

from __future__ import annotations

from typing import Any

from celery import Celery

from tasks.names import DISPATCH
from tasks.pacing import SKIPPED, comes_too_soon
from tasks.services import GetServices


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=DISPATCH, bind=True, shared=False)
    def dispatch(task: Any) -> dict[str, Any]:
        """Idempotent; may run concurrently."""
        if comes_too_soon(task, services().ledger):
            return SKIPPED
        return {"sent": services().dispatcher.dispatch()}
