"""Re-read credentials without a restart: after SIGHUP, and when the API or a destination refuses those in use.

Read are `.env` and the files of the cloud SDKs. Only credentials are taken over: any other setting would differ
between the processes until all are restarted. The environment of a process cannot change, and wins over `.env`.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import structlog

from worker.errors import SettingsError
from worker.logs.redaction import remember_secrets, secrets_of
from worker.settings import Settings, load_settings

log = structlog.get_logger(__name__)

LOOK_EVERY = timedelta(minutes=1)
"""At most so often a refusal makes a process read the files again."""

_FIELDS = ("hms_access_key", "hms_secret", "hms_management_token")
_SDK_VARIABLES = ("AWS_", "GOOGLE_", "AZURE_")
_SDK_FILES = (
    ("GOOGLE_APPLICATION_CREDENTIALS", "~/.config/gcloud/application_default_credentials.json"),
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ("AWS_CONFIG_FILE", "~/.aws/config"),
    ("AZURE_CLIENT_CERTIFICATE_PATH", ""),
)


class Credentials:
    """The settings with the credentials of now. Made before the fork: `ask` reaches every process of a worker."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings] = load_settings,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`elapsed`: seconds of a clock that is never set."""
        self._settings = settings
        self._load = load
        self._elapsed = elapsed
        self._shared = mmap.mmap(-1, 8)  # when somebody asked last; shared with the children
        self._seen = self._asked()
        self._refused = False
        self._looked_at: float | None = None
        self._known = _fingerprint(settings)

    def ask(self, *_signal: object) -> None:
        """Let every process re-read the credentials before its next task. May be a signal handler."""
        self._shared[:] = time.monotonic_ns().to_bytes(8, "big")

    def note_refusal(self) -> None:
        """Call when the credentials in use were refused."""
        self._refused = True

    def current(self) -> Settings:
        """Return the settings with the credentials of now; with the last ones when they cannot be read."""
        self._seen = self._asked()
        self._read()
        return self._settings

    def renewed(self, refused: Callable[[], bool]) -> Settings | None:
        """Return settings with other credentials than those in use, after `ask` whatever they are; None while those in
        use will do. `refused`: whether some are refused as far as the ledger knows; called once in LOOK_EVERY."""
        asked = self._asked()
        if asked != self._seen:
            self._seen = asked
            return self._settings if self._read() is not None else None
        now = self._elapsed()
        if self._looked_at is not None and now - self._looked_at < LOOK_EVERY.total_seconds():
            return None
        self._looked_at = now
        if not (self._refused or refused()):
            return None
        self._refused = False
        if not self._read():
            return None
        self.ask()  # the other processes of this worker have the refused ones too
        self._seen = self._asked()
        return self._settings

    def _asked(self) -> bytes:
        return self._shared[:]

    def _read(self) -> bool | None:
        """Read the files. Return whether credentials changed; None when they cannot be read, which is logged."""
        try:
            found = self._load()
        except SettingsError as error:
            log.error("credentials_not_read", reason=str(error))
            return None
        remember_secrets(secrets_of(found))
        self._settings = self._settings.model_copy(update={name: getattr(found, name) for name in _FIELDS})
        before, self._known = self._known, _fingerprint(self._settings)
        if changed := self._known != before:
            log.info("credentials_changed")
        return changed


def _fingerprint(settings: Settings) -> tuple[object, ...]:
    variables = sorted(each for each in os.environ.items() if each[0].startswith(_SDK_VARIABLES))
    files = [_stamp(os.environ.get(name) or default) for name, default in _SDK_FILES]
    return (*(getattr(settings, name) for name in _FIELDS), *variables, *files)


def _stamp(path: str) -> tuple[int, ...] | None:
    if not path:
        return None
    try:
        found = Path(path).expanduser().stat()
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
