"""Archive one asset. The message is only a wake-up: the ledger decides whether there is anything to do."""

from __future__ import annotations

from typing import Any

from celery import Celery

from archiver.core.attempt.decisions import describe
from archiver.core.attempt.outcomes import NotOurs, Outcome, WillRetry, settlement
from archiver.core.machine import MOST_FAULTS, MachineFaults, is_machine_fault
from archiver.ledger.models import SAFE_STATES
from tasks.names import ARCHIVE_ASSET
from tasks.services import GetServices, Services

REASON_LENGTH = 300
"""Longest reason shown in Flower; the ledger and the log have all of it."""


class NotArchived(Exception):
    """The attempt ended, and the asset is not archived: Celery records a failure. The outcome is in the ledger, which
    decides on the retry, and in the log."""


def register(app: Celery, services: GetServices, faults: MachineFaults | None = None) -> None:
    """`faults`: the counter of machine faults; each child of a worker has its own."""
    counted = faults or MachineFaults()

    @app.task(name=ARCHIVE_ASSET, bind=True, shared=False, throws=(NotArchived,))
    def archive_asset(task: Any, asset_id: str, asset_type: str = "") -> dict[str, Any]:  # noqa: ARG001
        """Idempotent; may run concurrently. `asset_type` is shown in Flower. Raises NotArchived with the state and the
        reason when the asset is not safe after this attempt.

        After a fault of this machine (memory, threads, disk) the process pauses; after MOST_FAULTS in a row it exits
        (SystemExit) and the worker starts another."""
        holder = f"{task.request.hostname}"
        made: Services | None = None
        outcome: Outcome | None = None
        fault: str | None = None
        try:
            made = services()
            outcome = made.archiver.archive(asset_id, holder=holder)
        except Exception as error:
            if not is_machine_fault(error):
                raise
            fault = describe(error)
        else:
            if isinstance(outcome, WillRetry) and outcome.machine_fault:
                fault = outcome.reason
        if fault is not None:
            counted.failed(fault, holder, made.ledger if made is not None else None)
            if counted.should_end:
                raise SystemExit(f"{MOST_FAULTS} faults of this machine in a row: {fault}")
            raise NotArchived(_brief("not_tried" if outcome is None else "waiting", fault)) from None
        assert outcome is not None
        if made is not None and not isinstance(outcome, NotOurs):
            counted.passed(holder, made.ledger)
        return result(outcome)


def result(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as Flower shows it: bytes, objects, seconds. Raises NotArchived."""
    if isinstance(outcome, NotOurs):
        return {"state": "not_ours", "reason": outcome.reason}
    how = settlement(outcome)
    if how.state not in SAFE_STATES:
        raise NotArchived(_brief(how.state, how.reason or "no reason was given"))
    return {
        "state": str(how.state),
        "bytes": how.stored_bytes,
        "objects": how.stored_objects,
        "seconds": round(how.seconds, 3),
        **({"reason": how.reason} if how.reason else {}),
        **({"warnings": list(how.warnings)} if how.warnings else {}),
    }


def _brief(state: str, reason: str) -> str:
    return f"{state}: {reason if len(reason) <= REASON_LENGTH else reason[: REASON_LENGTH - 3] + '...'}"
