"""Archive one asset. The message is only a wake-up: the ledger decides whether there is anything to do."""

from __future__ import annotations

from typing import Any

from celery import Celery

from archiver.core.attempt.decisions import describe
from archiver.core.attempt.outcomes import NotOurs, Outcome, WillRetry, settlement
from archiver.core.machine import MOST_FAULTS, MachineFaults, is_machine_fault
from tasks.names import ARCHIVE_ASSET
from tasks.services import GetServices, Services


def register(app: Celery, services: GetServices, faults: MachineFaults | None = None) -> None:
    """`faults`: the counter of machine faults; each child of a worker has its own."""
    counted = faults or MachineFaults()

    @app.task(name=ARCHIVE_ASSET, bind=True, shared=False)
    def archive_asset(task: Any, asset_id: str, asset_type: str = "") -> dict[str, Any]:
        """Idempotent; may run concurrently. `asset_type` is shown in Flower.

        After a fault of this machine (memory, threads, disk) the process pauses; after MOST_FAULTS in a row it exits
        (SystemExit) and the worker starts another."""
        holder = f"{task.request.hostname}"
        made: Services | None = None
        fault: str | None = None
        try:
            made = services()
            outcome = made.archiver.archive(asset_id, holder=holder)
        except Exception as error:
            if not is_machine_fault(error):
                raise
            fault = describe(error)
            shown: dict[str, Any] = {"state": "not_tried", "reason": fault}
        else:
            if isinstance(outcome, WillRetry) and outcome.machine_fault:
                fault = outcome.reason
            shown = result(outcome)
        if fault is not None:
            counted.failed(fault, holder, made.ledger if made is not None else None)
            if counted.should_end:
                raise SystemExit(f"{MOST_FAULTS} faults of this machine in a row: {fault}")
        elif made is not None and not isinstance(outcome, NotOurs):
            counted.passed(holder, made.ledger)
        return {"asset_id": asset_id, "type": asset_type, **shown}


def result(outcome: Outcome) -> dict[str, Any]:
    """The outcome as Flower shows it: bytes, objects, seconds."""
    if isinstance(outcome, NotOurs):
        return {"state": "not_ours", "reason": outcome.reason}
    how = settlement(outcome)
    return {
        "state": str(how.state),
        "bytes": how.stored_bytes,
        "objects": how.stored_objects,
        "seconds": round(how.seconds, 3),
        **({"reason": how.reason} if how.reason else {}),
        **({"warnings": list(how.warnings)} if how.warnings else {}),
    }
