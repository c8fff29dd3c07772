"""Shared by every command: exit codes, the two consoles, option types, settings with logging."""

from __future__ import annotations

import io
import os
import sys
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO, cast

import typer
from rich.console import Console
from rich.text import Text

from worker.errors import SettingsError
from worker.logs.escaping import escaped

if TYPE_CHECKING:
    from worker.settings import Settings


class ExitCode(IntEnum):
    """What `archiver` tells its caller; EXIT_CODES says it in words."""

    OK = 0
    NOT_SAVED = 1
    WRONG_SETTINGS = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


EXIT_CODES = (
    "0 all is well; 1 something is not saved or a check found a problem; 2 the command line or a setting is wrong, or "
    "credentials are missing; 3 the broker, the API or a destination cannot be reached, or refuses the credentials; "
    "130 interrupted."
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
AssetIds = Annotated[
    list[str], typer.Argument(metavar="ID", help="Asset ids, as 100ms and `status` show them.")
]
Why = Annotated[str, typer.Option("--why", help="The reason, kept for the record.", show_default=False)]
By = Annotated[
    str, typer.Option("--by", help="Who decides. Default: the user who runs this.", show_default=False)
]

UNLIMITED_COLUMNS = 10_000


def _console(*, stderr: bool) -> Console:
    """Without a terminal, and unless COLUMNS asks for a width, lines are never wrapped or cut: what reads them looks
    for whole asset ids."""
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNLIMITED_COLUMNS
    return console


out = _console(stderr=False)
"""Answers. With --json they are printed plainly instead."""
err = _console(stderr=True)
"""Progress, hints and errors."""


def print_json(text: str) -> None:
    """Print one line of JSON on stdout."""
    print(text)  # noqa: T201


def time_of(text: str, option: str) -> datetime:
    """Read a time (RFC 3339) or a date (UTC). Raises BadParameter."""
    from archiver.hms.models import parse_time

    found = parse_time(text) or parse_time(f"{text}T00:00:00Z")
    if found is None:
        raise typer.BadParameter(
            "write a date or a time, such as 2026-03-01 or 2026-03-01T12:00:00Z", param_hint=option
        )
    return found


def fail(error: Exception, code: ExitCode) -> NoReturn:
    """Print the error without secrets and end the process."""
    from worker.logs.redaction import redact

    # a message may have several lines; each is escaped, so that it cannot act on the terminal
    lines = [escaped(line) for line in redact(str(error)).split("\n")]
    err.print(Text("archiver: ", style="bold red") + Text("\n".join(lines)))
    sys.exit(code)


def read_settings() -> Settings:
    """Read the settings and set up logging. In a terminal only warnings are logged unless ARCHIVER_LOG_LEVEL is set.
    Raises SettingsError."""
    from worker.logs.setup import log_uncaught_exceptions, setup_logging
    from worker.settings import load_settings

    settings = load_settings()
    if sys.stderr.isatty() and "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": "WARNING"})
    setup_logging(settings, cast(TextIO, _CurrentStderr()))
    log_uncaught_exceptions()
    return settings


def require_credentials(settings: Settings) -> Settings:
    """Raises SettingsError when there are no 100ms credentials."""
    if not settings.has_credentials:
        raise SettingsError(
            "There are no 100ms credentials. Set HMS_ACCESS_KEY and HMS_SECRET (100ms dashboard, Developer section) in "
            "the environment or in .env;\nor try it on simulated recordings: archiver up --simulator, or archiver demo."
        )
    return settings


class _CurrentStderr(io.TextIOBase):
    """Whatever `sys.stderr` is at the moment: a live view replaces it and prints above itself."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()
