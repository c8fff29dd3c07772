"""Find the broker and ledger for a command: the configured one, that of a running `archiver up`, or an embedded one for
the duration of the command."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from worker.embedded.valkey import EmbeddedValkey
from worker.errors import SettingsError
from worker.settings import Settings


def check_state_dir(settings: Settings) -> None:
    """Create the state directory if needed. Raises SettingsError when it cannot be written."""
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.state_dir):
            pass
    except OSError as error:
        raise SettingsError(
            f"ARCHIVER_STATE_DIR: {settings.state_dir} cannot be used ({error.strerror}). It must be a directory that "
            "this user may write, for the embedded Valkey; or set ARCHIVER_REDIS_URL to your own server"
        ) from error


@contextmanager
def broker_url(settings: Settings) -> Iterator[str]:
    """Yield the broker's URL. A configured broker is not contacted. Raises SupervisorError when an embedded one cannot
    start, SettingsError when the state directory cannot be used."""
    if settings.redis_url is not None:
        yield settings.redis_url.get_secret_value()
        return
    check_state_dir(settings)
    running = EmbeddedValkey(settings.state_dir)
    if running.answers() and (url := running.url()):
        yield url
        return
    from worker.embedded.supervisor import Supervisor  # imports Celery: only when a server is needed

    with Supervisor(settings.state_dir, environment=dict(os.environ), with_workers=False) as supervisor:
        supervisor.start()
        yield supervisor.redis_url
