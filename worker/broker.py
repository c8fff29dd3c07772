"""Find the broker and ledger for a command: the configured one, that of a running `archiver up`, or an embedded one for
the duration of the command."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from worker.embedded.errors import AlreadyRunning
from worker.embedded.valkey import EmbeddedValkey
from worker.errors import SettingsError, SupervisorError
from worker.settings import Settings

OTHER_SECONDS = 5
"""For a server that another process has begun to start."""


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
        try:
            supervisor.start()
        except AlreadyRunning:
            yield _of_the_other(running, settings)
        else:
            yield supervisor.redis_url


def _of_the_other(running: EmbeddedValkey, settings: Settings) -> str:
    """Return the URL of the server that another process starts or restarts now. Raises SupervisorError when it does not
    answer."""
    until = time.monotonic() + OTHER_SECONDS
    while True:
        if running.answers() and (url := running.url()):
            return url
        if time.monotonic() >= until:
            raise SupervisorError(
                f"An archiver runs on the state directory {settings.state_dir}, and its embedded Valkey does not "
                f"answer. If that lasts: see {settings.state_dir / 'logs' / 'valkey.log'}, and restart `archiver up`."
            )
        time.sleep(0.1)
