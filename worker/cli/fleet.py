"""Ask the workers over the broker."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.settings import Settings

_ANSWER_SECONDS = 2


def older_workers(settings: Settings) -> list[str]:
    """Return the names of workers that answer within two seconds and do not know the task DRILL, which came with
    tombstones: they are of an earlier version. Raises LedgerUnavailable, for broker and ledger are one server."""
    from celery import Celery
    from kombu.exceptions import OperationalError

    from archiver.ledger.errors import LedgerUnavailable
    from worker.embedded.valkey import EmbeddedValkey

    if settings.redis_url is None and not EmbeddedValkey(settings.state_dir).answers():
        return []  # no broker of theirs runs
    from tasks.names import ARCHIVE_ASSET, DRILL
    from worker.broker import broker_url
    from worker.celery_setup.config import celery_settings
    from worker.ledger import build_ledger

    with broker_url(settings) as url, Celery(set_as_current=False) as client:
        with closing(build_ledger(settings, url)) as ledger:
            ledger.ping()  # says better than Celery what is wrong
        client.conf.update(celery_settings(broker_url=url, concurrency=1))
        try:
            registered = client.control.inspect(timeout=_ANSWER_SECONDS).registered() or {}
        except OperationalError as error:
            raise LedgerUnavailable(f"the workers cannot be asked for their version: {error}") from error
    return sorted(
        name
        for name, tasks in registered.items()
        if any(task.startswith(ARCHIVE_ASSET) for task in tasks)
        and not any(task.startswith(DRILL) for task in tasks)
    )
