"""Compare the ledger and its clock with the destinations and repair the differences; delete what has been kept for its
term; look for webhooks that nobody took; replicate what a destination lacks; keep who was in the sessions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from celery import Celery

from tasks.names import RECONCILE
from tasks.services import GetServices
from tasks.throttle import SKIPPED, comes_too_soon


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=RECONCILE, bind=True, shared=False)
    def reconcile(task: Any) -> dict[str, Any]:
        """Idempotent; may run concurrently."""
        if comes_too_soon(task, services().ledger):
            return SKIPPED
        services().require_own_ledger()
        services().missed_webhooks.look()
        result = services().reconciler.reconcile()
        if result is None:
            return {"skipped": "another reconcile is already running"}
        services().measure_clocks()
        services().session_keeper.keep()
        expired = services().expirer.run()
        replicated = services().replicator.replicate_due()
        return {
            **asdict(result),
            "expired": expired.expired if expired else 0,
            "replicated": replicated.copied if replicated else 0,
        }
