"""Open what a command works on: the ledger alone, or every service of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archiver.ledger.redis.ledger import RedisLedger
    from worker.services import AppServices
    from worker.settings import Settings


@contextmanager
def open_ledger(settings: Settings) -> Iterator[RedisLedger]:
    """Yield the ledger alone, after it answered a ping. Raises LedgerError, SupervisorError, SettingsError."""
    from worker.broker import broker_url
    from worker.ledger import build_ledger

    with broker_url(settings) as url, closing(build_ledger(settings, url)) as ledger:
        ledger.ping()
        yield ledger


@contextmanager
def open_services(
    settings: Settings,
    *,
    check_broker: bool = True,
    own_ledger: bool = False,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Iterator[AppServices]:
    """Yield every service of one process. Raises LedgerError when the ledger does not answer (unless `check_broker` is
    false), SupervisorError, SettingsError; with `own_ledger` LedgerOfAnotherWorkspace."""
    from worker.bootstrap import build_services
    from worker.broker import broker_url

    with ExitStack() as stack:
        url = stack.enter_context(broker_url(settings))
        services = build_services(
            settings, redis_url=url, send=lambda _row, _urgent: None, stop_requested=stop_requested
        )
        stack.callback(services.close)
        if check_broker:
            services.ledger.ping()
        if own_ledger:
            services.require_own_ledger()
        yield services
