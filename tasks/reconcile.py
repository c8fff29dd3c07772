"""Compares the ledger with the buckets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from celery import Celery

from tasks.names import RECONCILE
from tasks.services import GetServices


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=RECONCILE, shared=False)
    def reconcile() -> dict[str, Any]:
        """May run twice, at once too."""
        result = services().reconciler.reconcile()
        return asdict(result) if result else {"skipped": "another reconcile is at it"}
