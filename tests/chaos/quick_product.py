"""The product's own app (`worker.app`), without pauses for which a test cannot wait: a message that Redis lost is sent
again after seconds instead of 15 minutes, and an urgent asset waits for a slot for a second instead of 30."""

from __future__ import annotations

from datetime import timedelta

from archiver.core.attempt import heartbeat, urgency
from archiver.core.upkeep import dispatch as dispatching

dispatching.REQUEUE_AFTER = timedelta(seconds=3)
urgency.URGENT_AFTER = timedelta(seconds=1)
heartbeat.LOOK_EVERY = timedelta(seconds=1)

from worker.app import app  # noqa: E402  (after the lines above)

__all__ = ["app"]
