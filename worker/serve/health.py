"""/healthz: would a restart help? /readyz: does the archiver make progress?

Liveness fails only for what a restart of this process repairs: an event loop that answers nothing, an alert loop that
hangs. A dead destination, Redis or worker is none of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse

from archiver.core.health import find_no_progress
from archiver.core.upkeep.status import summarize_facts
from archiver.ledger.base import Ledger
from archiver.ledger.errors import LedgerError
from worker.serve.calls import Busy, SharedCall

STUCK_AFTER = timedelta(minutes=15)
"""Without a look of the alert loop. A ledger that hangs, and ten channels that do, take less."""
READY_SECONDS = 5
"""For the ledger to answer."""


class Health:
    """Answers the probes."""

    def __init__(
        self,
        *,
        looked_at: Callable[[], float],
        no_progress: Callable[[], Sequence[str]],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`looked_at`: when the alert loop ended its last look, by `steady`. `no_progress`: ids of the rules that fire;
        may block, and raise LedgerError."""
        self._looked_at = looked_at
        self._steady = steady
        self._no_progress = SharedCall("readiness", no_progress, seconds=READY_SECONDS)

    async def live(self, _request: Request) -> JSONResponse:
        silent = self._steady() - self._looked_at()
        if silent > STUCK_AFTER.total_seconds():
            return _answer(503, {"live": False, "problems": ["alert_loop_is_stuck"]})
        return _answer(200, {"live": True, "problems": []})

    async def ready(self, _request: Request) -> JSONResponse:
        try:
            problems = list(await self._no_progress())
        except (LedgerError, TimeoutError, Busy):
            problems = ["ledger_unreachable"]
        return _answer(503 if problems else 200, {"ready": not problems, "problems": problems})


def no_progress(
    ledger: Ledger, clock: Callable[[], datetime], *, at_risk_within: timedelta, sweep_every: timedelta
) -> list[str]:
    """Return the ids of the rules that say that nothing moves. Raises LedgerError."""
    facts = ledger.recall_all("")
    summary = summarize_facts(ledger, facts, clock(), at_risk_within=at_risk_within, sweep_every=sweep_every)
    return list(dict.fromkeys(found.id for found in find_no_progress(summary)))


def _answer(status: int, body: object) -> JSONResponse:
    return JSONResponse(body, status, headers={"Cache-Control": "no-store"})
