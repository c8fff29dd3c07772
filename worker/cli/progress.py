"""The progress of a long command on stderr: a bar on a terminal, else one line a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.cli.shared import err
from worker.logs.escaping import escaped

LINE_EVERY_SECONDS = 60


class Work:
    """How far the work is; `archiver.core.upkeep.phases.Tell`. A new phase starts at zero."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._phase, self._done, self._size_bytes = "", 0, 0
        self._total: int | None = None
        self._began = self._phase_began = clock()

    def __call__(
        self, phase: str, done: int = 0, total: int | None = None, /, *, size_bytes: int = 0
    ) -> None:
        with self._lock:
            if phase != self._phase:
                self._phase, self._phase_began = phase, self._clock()
            self._done, self._total, self._size_bytes = done, total, size_bytes

    @property
    def phase(self) -> str:
        return self._phase

    @property
    def done(self) -> int:
        return self._done

    @property
    def total(self) -> int | None:
        return self._total

    @property
    def rate(self) -> str:
        """Bytes per second since the work began if it reads any, else things per second of this phase; empty while it
        cannot be told."""
        from worker.views.text import size

        with self._lock:
            seconds, phase_seconds = self._clock() - self._began, self._clock() - self._phase_began
            if self._size_bytes and seconds > 0:
                return f"{size(self._size_bytes / seconds)}/s"
            return f"{self._done / phase_seconds:,.1f}/s" if self._done and phase_seconds > 0 else ""

    def line(self) -> str:
        """Say it all on one line, such as `reading back: 120 of 1,000, 2.1 MiB/s, 7 min left`."""
        from worker.views.text import span

        parts = [f"{self._done:,}" if self._total is None else f"{self._done:,} of {self._total:,}"]
        if rate := self.rate:
            parts.append(rate)
        elapsed = self._clock() - self._phase_began
        if self._total is not None and 0 < self._done <= self._total and elapsed > 0:
            left = timedelta(seconds=elapsed / self._done * (self._total - self._done))
            parts.append(f"{span(left)} left")
        return escaped(f"{self._phase or 'starting'}: {', '.join(parts)}")


@contextmanager
def progress_shown(
    *, quiet: bool = False, refresh: Callable[[Work], None] = lambda _work: None
) -> Iterator[Work]:
    """Yield the work to tell, and show it while the block runs. `quiet`: no bar, lines only. `refresh`: called before
    each look, for work that does not tell by itself."""
    work, ended = Work(), threading.Event()
    show = _bar if err.is_terminal and not quiet else _lines
    thread = threading.Thread(target=show, args=(work, ended, refresh), name="progress", daemon=True)
    thread.start()
    try:
        yield work
    finally:
        ended.set()
        thread.join(timeout=5)


def _lines(work: Work, ended: threading.Event, refresh: Callable[[Work], None]) -> None:
    while not ended.wait(LINE_EVERY_SECONDS):
        refresh(work)
        err.print(work.line(), markup=False, highlight=False)


def _bar(work: Work, ended: threading.Event, refresh: Callable[[Work], None]) -> None:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task, phase = progress.add_task("starting", total=None, rate=""), ""
        while not ended.wait(0.2):
            refresh(work)
            if work.phase != phase:
                phase = work.phase
                progress.reset(task, description=escaped(phase), total=work.total)
            progress.update(task, completed=work.done, total=work.total, rate=work.rate)
