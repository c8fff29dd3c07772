"""Looks for what is at risk and says so."""

from __future__ import annotations

from typing import Any

from celery import Celery

from tasks.names import WATCH
from tasks.services import GetServices


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=WATCH)
    def watch() -> dict[str, Any]:
        """May run twice, at once too."""
        summary = services().watcher.watch()
        return {
            "healthy": summary.healthy,
            "states": dict(summary.counts.states),
            "at_risk": len(summary.at_risk),
        }
