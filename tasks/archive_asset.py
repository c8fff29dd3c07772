"""The door to one asset. The message is a wake-up: the ledger decides whether there is anything to do."""

from __future__ import annotations

from typing import Any

from celery import Celery

from archiving.outcomes import NotOurs, Outcome, settlement
from tasks.names import ARCHIVE_ASSET
from tasks.services import GetServices


def register(app: Celery, services: GetServices) -> None:
    @app.task(name=ARCHIVE_ASSET, bind=True, shared=False)
    def archive_asset(task: Any, asset_id: str, asset_type: str = "") -> dict[str, Any]:
        """`asset_type` is for people who look at Flower. May run twice, at once too."""
        outcome = services().archiver.archive(asset_id, holder=f"{task.request.hostname}")
        return {"asset_id": asset_id, "type": asset_type, **result(outcome)}


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
