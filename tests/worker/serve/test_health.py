"""Liveness and readiness: what fails them, and what must not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from archiver.core.upkeep.status import WATCH_FACT
from archiver.core.upkeep.sweep import FACT as SWEEP_FACT
from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.memory.ledger import MemoryLedger
from tests.core.examples import NOW
from tests.core.fakes import Clock
from tests.worker.serve.running import listening
from worker.serve.health import STUCK_AFTER, Health, no_progress

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def away() -> Sequence[str]:
    raise LedgerUnavailable("away")


def ask(
    path: str, *, silent_for: timedelta = MINUTE, problems: Callable[[], Sequence[str]] = lambda: ()
) -> httpx.Response:
    health = Health(
        looked_at=lambda: 1000.0, no_progress=problems, steady=lambda: 1000.0 + silent_for.total_seconds()
    )
    app = Starlette(routes=[Route("/healthz", health.live), Route("/readyz", health.ready)])
    with listening(app) as listener:
        return httpx.get(listener.url + path, timeout=30, trust_env=False)


@pytest.mark.parametrize("problems", [away, lambda: ["sweep_is_late"]])
def test_liveness_does_not_depend_on_what_a_restart_cannot_help(
    problems: Callable[[], Sequence[str]],
) -> None:
    assert ask("/healthz", problems=problems).status_code == 200


def test_a_stuck_alert_loop_fails_liveness() -> None:
    assert ask("/healthz", silent_for=STUCK_AFTER).status_code == 200

    answer = ask("/healthz", silent_for=STUCK_AFTER + MINUTE)

    assert answer.status_code == 503
    assert answer.json() == {"live": False, "problems": ["alert_loop_is_stuck"]}


def test_readiness_names_what_is_wrong() -> None:
    answer = ask("/readyz", problems=lambda: ["sweep_is_late", "control_is_silent"])

    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "problems": ["sweep_is_late", "control_is_silent"]}
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_ledger_that_is_away_is_not_ready() -> None:
    assert ask("/readyz", problems=away).json() == {"ready": False, "problems": ["ledger_unreachable"]}


def test_with_progress_it_is_ready() -> None:
    answer = ask("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "problems": []}


@pytest.mark.parametrize(
    ("swept_ago", "watched_ago", "found"),
    [
        (None, MINUTE, ["no_sweep"]),
        (MINUTE, MINUTE, []),
        (4 * HOUR, MINUTE, ["sweep_is_late"]),
        (MINUTE, HOUR, ["control_is_silent"]),
        (4 * HOUR, HOUR, ["sweep_is_late", "control_is_silent"]),
        (-HOUR, MINUTE, ["clock_is_wrong"]),
    ],
)
def test_health_means_progress(swept_ago: timedelta | None, watched_ago: timedelta, found: list[str]) -> None:
    clock = Clock(NOW)
    ledger = MemoryLedger(clock)
    if swept_ago is not None:
        ledger.remember(SWEEP_FACT, {"started_at": (NOW - swept_ago).isoformat()})
    ledger.remember(WATCH_FACT, {"at": (NOW - watched_ago).isoformat()})

    assert no_progress(ledger, clock, at_risk_within=DAY, sweep_every=HOUR) == found
