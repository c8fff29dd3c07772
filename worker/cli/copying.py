"""Copy assets in this process until Ctrl-C, for `run --once` and `archive`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from archiver.hms.errors import HmsError
from archiver.ledger.errors import LedgerError
from storage_backends.errors import StorageError
from worker.cli.progress import Work, progress_shown
from worker.cli.shared import ExitCode, err
from worker.logs.escaping import escaped

if TYPE_CHECKING:
    from worker.run_once import OneRun
    from worker.services import AppServices
    from worker.settings import Settings


@contextmanager
def cancelled_by_signal(
    notice: str = "Stopping; unfinished uploads are resumed at the next run. Press again to stop at once.",
) -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or SIGTERM sets. A second one raises KeyboardInterrupt."""
    cancelled = threading.Event()

    def cancel(_number: int, _frame: object) -> None:
        if cancelled.is_set():
            raise KeyboardInterrupt
        cancelled.set()
        err.print(notice, style="dim")

    old = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancelled
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def build_run(settings: Settings, services: AppServices, cancelled: threading.Event, wait: float) -> OneRun:
    """`wait`: seconds to wait for retries that fall due soon."""
    from archiver.ledger.clock import LedgerClock
    from worker.identities import workspace_in
    from worker.run_once import OneRun

    return OneRun(
        reconciler=services.reconciler,
        replicator=services.replicator,
        sweeper=services.sweeper,
        archiver=services.archiver,
        ledger=services.ledger,
        concurrency=settings.worker_concurrency,
        retry_wait=timedelta(seconds=wait),
        clock=LedgerClock(services.ledger),
        cancelled=cancelled,
        workspace=workspace_in(settings),
    )


@contextmanager
def status_shown(services: AppServices, *, quiet: bool) -> Iterator[None]:
    """Show the status on stderr while the block runs; one line a minute when that is no terminal."""
    if quiet or not err.is_terminal:
        with progress_shown(quiet=True, refresh=partial(_tell_copies, services)):
            yield
        return
    from worker.views.status import summary_view

    ended = threading.Event()

    def refresh(live: Live) -> None:
        while not ended.wait(0.5):
            live.update(summary_view(services.watcher.summary()), refresh=True)

    with Live(console=err, transient=True, auto_refresh=False) as live:
        thread = threading.Thread(target=refresh, args=(live,), name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=5)


def _tell_copies(services: AppServices, work: Work) -> None:
    """Tell how far the running copies are. The ledger may be away for a while."""
    try:
        copies = services.ledger.progress()
    except LedgerError:
        return
    done = sum(copy.objects_done for copy in copies)
    size_bytes = sum(copy.bytes_done for copy in copies)
    work(f"copying {len(copies):,} assets, objects", done, size_bytes=size_bytes)


def exit_code(services: AppServices, *, all_safe: bool, cancelled: bool) -> ExitCode:
    """The exit code of a command that copied. Prints what cannot be reached when that is the cause."""
    if all_safe:
        return ExitCode.OK
    if cancelled:
        return ExitCode.INTERRUPTED
    unreachable = list(_unreachable(services))
    for _, reason in unreachable:
        err.print(Text("archiver: ", style="bold red") + Text(escaped(reason)))
    return min((code for code, _ in unreachable), default=ExitCode.NOT_SAVED)


def _unreachable(services: AppServices) -> Iterator[tuple[ExitCode, str]]:
    """Ask the API and each destination, and yield why one of them does not serve us."""
    from archiver.core.destinations import breaker
    from archiver.core.records import keys
    from storage_backends.errors import CredentialsMissing

    opened = breaker.opened(services.ledger, services.ledger.now())
    yield from ((ExitCode.UNREACHABLE, each.reason) for each in opened.values())
    try:
        if breaker.API not in opened:
            services.api.check()
    except HmsError as error:
        yield ExitCode.UNREACHABLE, str(error)
    for store in services.destinations:
        try:
            store.stat(keys.ABSENT)
        except CredentialsMissing as error:
            yield ExitCode.WRONG_SETTINGS, f"{store.name}: {error}"
        except StorageError as error:
            if store.name not in opened:
                yield ExitCode.UNREACHABLE, f"{store.name}: {error}"
