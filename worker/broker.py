"""Where this command finds the broker and ledger: the configured one, that of a running `archiver up`, or an
embedded one for as long as the command takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from worker.embedded import Supervisor
from worker.embedded_valkey import EmbeddedValkey
from worker.settings import Settings


@contextmanager
def broker_url(settings: Settings) -> Iterator[str]:
    """Raises SupervisorError when an embedded server cannot start; a configured one is not asked here."""
    if settings.redis_url is not None:
        yield settings.redis_url.get_secret_value()
        return
    running = EmbeddedValkey(settings.state_dir)
    if running.answers() and (url := running.url()):
        yield url
        return
    with Supervisor(settings.state_dir, environment=dict(os.environ), with_workers=False) as supervisor:
        supervisor.start()
        yield supervisor.redis_url
