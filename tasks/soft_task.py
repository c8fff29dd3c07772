"""What every task of the app is: one that fails alone."""

from __future__ import annotations

from typing import Any

from celery import Task


class OutOfMemory(Exception):
    """A task ran out of memory. Not a MemoryError: Celery ends the whole worker for one."""


class SoftTask(Task):  # type: ignore[type-arg]
    """Pass as `task_cls`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except MemoryError as error:
            raise OutOfMemory(f"{self.name} ran out of memory; the worker goes on") from error
