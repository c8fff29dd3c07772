"""Celery's consumer with a fix for 5.6.3: after a lost connection it forgets which of its children are busy.

It then gives new messages to a child that is copying, where they wait for hours while other children idle. Fixed in
Celery after 5.6 (celery/celery#10346). Delete this file together with the pin in pyproject.toml
(docs/decisions/0002-celery-pin.md), once tests/chaos/test_broker_restart.py passes without it.
"""

from __future__ import annotations

from celery.concurrency.asynpool import AsynPool
from celery.worker import consumer


class Consumer(consumer.Consumer):
    """Set as `worker_consumer`."""

    def on_close(self) -> None:
        """Called after each lost connection and at shutdown."""
        super().on_close()  # flushes the pool, which forgets the busy children
        pool = getattr(self.pool, "_pool", None)
        if isinstance(pool, AsynPool):
            pool._busy_workers.update(_busy(pool))  # type: ignore[attr-defined]  # noqa: SLF001


def _busy(pool: AsynPool) -> set[int]:
    """The pipes of the children that accepted a task and have not finished it."""
    return {
        job._write_to.inqW_fd  # noqa: SLF001
        for job in pool._cache.values()  # type: ignore[attr-defined]  # noqa: SLF001
        if job._accepted and not job.ready() and job._write_to is not None  # noqa: SLF001
    }
