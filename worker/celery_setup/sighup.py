"""SIGHUP re-reads credentials. Celery's own handler restarts the worker, which interrupts running copies."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps, signals


def on_sighup(app: Celery, ask: Callable[..., None]) -> None:
    """Call `ask` for a SIGHUP to the worker or to a child that runs a task. In a terminal, whose end sends SIGHUP, the
    worker ends, as Celery lets it."""

    def install(*_: object, **__: object) -> None:
        if not sys.stdout.isatty() and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, ask)

    class InstallHandler(bootsteps.StartStopStep):
        """Steps are started after Celery has installed its handlers, and before the first message is taken."""

        def start(self, _parent: Any) -> None:
            install()

        def stop(self, _parent: Any) -> None:
            return

    app.steps["worker"].add(InstallHandler)
    # A child resets its signals after `worker_process_init`; one that is idle ends by SIGHUP, and is replaced.
    signals.task_prerun.connect(install, weak=False)
