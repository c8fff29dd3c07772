"""Verify a share of what is archived."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from celery import Celery

from tasks.names import SCRUB
from tasks.services import GetServices
from tasks.throttle import SKIPPED, comes_too_soon


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=SCRUB, bind=True, shared=False)
    def scrub(task: Any) -> dict[str, Any]:
        """Idempotent; may run concurrently."""
        if comes_too_soon(task, services().ledger):
            return SKIPPED
        services().require_own_ledger()
        result = services().scrubber.scrub()
        return asdict(result) if result else {"skipped": "another scrub is already running"}
