"""The product's own app (`worker.app`), but a message that Redis lost is sent again after seconds instead of 15
minutes, for which a test cannot wait."""

from __future__ import annotations

from datetime import timedelta

from archiver.core.upkeep import dispatch as dispatching

dispatching.REQUEUE_AFTER = timedelta(seconds=3)

from worker.app import app  # noqa: E402  (after the line above)

__all__ = ["app"]
