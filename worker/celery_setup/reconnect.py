"""Celery's consumer, with one fault of 5.6.3 mended: after a lost connection it forgets which of its children are busy.

It then hands a new message to a child that already copies, where it waits for hours while other children idle: in our
test every time. Celery mended it after 5.6 (celery/celery#10346); this file goes when the pin in pyproject.toml does
(docs/decisions/0002-celery-pin.md), and tests/chaos/test_broker_restart.py tells whether it may.
"""

from __future__ import annotations

from celery.concurrency.asynpool import AsynPool
from celery.worker import consumer


class Consumer(consumer.Consumer):
    """Set as `worker_consumer`."""

    def on_close(self) -> None:
        """Called at each loss of the connection, and at the end."""
        super().on_close()  # flushes the pool, which is where the busy ones are forgotten
        pool = getattr(self.pool, "_pool", None)
        if isinstance(pool, AsynPool):
            pool._busy_workers.update(_busy(pool))  # type: ignore[attr-defined]  # noqa: SLF001


def _busy(pool: AsynPool) -> set[int]:
    """The pipes of the children that accepted a task and have not answered."""
    return {
        job._write_to.inqW_fd  # noqa: SLF001
        for job in pool._cache.values()  # type: ignore[attr-defined]  # noqa: SLF001
        if job._accepted and not job.ready() and job._write_to is not None  # noqa: SLF001
    }
