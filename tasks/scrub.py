"""Reads back a share of what is archived."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from celery import Celery

from tasks.names import SCRUB
from tasks.services import GetServices


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=SCRUB, shared=False)
    def scrub() -> dict[str, Any]:
        """May run twice, at once too."""
        result = services().scrubber.scrub()
        return asdict(result) if result else {"skipped": "another scrub is at it"}
