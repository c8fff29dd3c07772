"""Checks of the broker and ledger: reachable, and persistent."""

from __future__ import annotations

from collections.abc import Iterator

from archiver.ledger.errors import LedgerError
from archiver.ledger.redis.ledger import RedisLedger
from worker.doctor.check_result import CheckResult, Verdict


def check_broker(ledger: RedisLedger) -> Iterator[CheckResult]:
    subject = "broker and ledger"
    try:
        ledger.ping()
    except LedgerError as error:
        yield CheckResult(
            subject, Verdict.PROBLEM, str(error), "Check ARCHIVER_REDIS_URL and whether the server runs."
        )
    else:
        yield CheckResult(subject, Verdict.OK, "answers and accepts writes")
    try:
        persistence = ledger.persistence()
    except LedgerError:
        return  # reported above
    if persistence.sound is None:
        yield CheckResult(
            "persistence",
            Verdict.WARNING,
            persistence.explanation,
            "Check on the server: appendonly yes, maxmemory-policy noeviction.",
        )
    elif persistence.sound:
        yield CheckResult("persistence", Verdict.OK, persistence.explanation)
    else:
        yield CheckResult(
            "persistence",
            Verdict.PROBLEM,
            persistence.explanation,
            "Set appendonly yes and maxmemory-policy noeviction on the server, and give it enough disk and memory.",
        )
