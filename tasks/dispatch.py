"""Sends for what is due."""

from __future__ import annotations

from typing import Any

from celery import Celery

from tasks.names import DISPATCH
from tasks.services import GetServices


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=DISPATCH, shared=False)
    def dispatch() -> dict[str, Any]:
        """May run twice, at once too."""
        return {"sent": services().dispatcher.dispatch()}
