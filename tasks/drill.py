"""Nightly, if due: make the monthly statements, renew the catalogues, restore a few archived copies as a test."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from celery import Celery

from tasks.names import DRILL
from tasks.services import GetServices
from tasks.throttle import SKIPPED, comes_too_soon


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=DRILL, bind=True, shared=False)
    def drill(task: Any) -> dict[str, Any]:
        """Idempotent; may run concurrently."""
        if comes_too_soon(task, services().ledger):
            return SKIPPED
        services().require_own_ledger()
        statements = services().stater.state_due()
        catalogues = services().cataloguer.write_due()
        result = services().driller.drill_if_due()
        done = asdict(result) if result else {"skipped": "not due, off, or another drill is running"}
        return {**done, "statements": statements, "catalogues": catalogues}
