"""Base class of every task: running out of memory fails the task, not the worker."""

from __future__ import annotations

from typing import Any

from celery import Task


class OutOfMemory(Exception):
    """A task ran out of memory. Not a MemoryError, for which Celery ends the whole worker."""


class SoftTask(Task):  # type: ignore[type-arg]
    """Pass as `task_cls`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except MemoryError as error:
            raise OutOfMemory(f"{self.name} ran out of memory; the worker keeps running") from error
