"""Raise an alarm for assets at risk, and record which beat sent the message."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import Celery

from archiver.ledger.base import Facts
from tasks.names import WATCH
from tasks.services import GetServices
from tasks.throttle import SKIPPED, comes_too_soon

BEAT_HEADER = "beat"
_FACT = "beat:"
_HEARD_FOR = timedelta(minutes=3)  # watch is sent every minute


def register(app: Celery, services: GetServices) -> None:
    # No events: it runs so often that Flower would show little else.
    @app.task(name=WATCH, bind=True, shared=False, send_events=False)
    def watch(task: Any) -> dict[str, Any]:
        """Idempotent; may run concurrently."""
        made = services()
        if beat := (task.request.headers or {}).get(BEAT_HEADER):
            made.ledger.remember(_FACT + str(beat), {}, lifetime=_HEARD_FOR)
        if comes_too_soon(task, made.ledger):
            return SKIPPED
        summary = made.watcher.watch()
        made.write_probe.run()  # last: a destination that does not answer takes a while
        return {
            "healthy": summary.healthy,
            "states": {str(state): number for state, number in summary.counts.states.items()},
            "at_risk": len(summary.at_risk),
        }


def beats(ledger: Facts) -> list[str]:
    """The beat processes that sent a watch within the last 3 minutes, `host:pid` each; there should be one. Raises
    LedgerError."""
    return sorted(name.removeprefix(_FACT) for name in ledger.recall_all(_FACT))
