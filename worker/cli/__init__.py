"""The `archiver` command: one file per command (`cmd_<name>.py`), assembled into one Typer app here.

May import everything below `worker`. A command imports what it needs inside its function, so that `--help` does not
load Celery and `status` does not load the storage SDKs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.markup import escape

from archiver.core.errors import LedgerOfAnotherWorkspace
from archiver.hms.errors import HmsError
from archiver.http.trust import UnusableCaFile
from archiver.ledger.errors import LedgerError
from storage_backends.errors import BadDestinationUrl, StorageError
from worker.cli.cmd_accept import accept
from worker.cli.cmd_ack import ack
from worker.cli.cmd_adopt import adopt
from worker.cli.cmd_alerts import alerts
from worker.cli.cmd_archive import archive
from worker.cli.cmd_backfill import backfill
from worker.cli.cmd_catalogue import catalogue
from worker.cli.cmd_demo import demo
from worker.cli.cmd_doctor import doctor
from worker.cli.cmd_drill import drill
from worker.cli.cmd_erase import erase
from worker.cli.cmd_events import events
from worker.cli.cmd_expire import expire
from worker.cli.cmd_init import init
from worker.cli.cmd_list import list_assets
from worker.cli.cmd_pause import drain, pause, resume
from worker.cli.cmd_plan import plan
from worker.cli.cmd_rebuild import rebuild
from worker.cli.cmd_reconcile import reconcile
from worker.cli.cmd_reject import reject
from worker.cli.cmd_replicate import replicate
from worker.cli.cmd_restore import restore
from worker.cli.cmd_retry import retry
from worker.cli.cmd_run import run
from worker.cli.cmd_scrub import scrub
from worker.cli.cmd_serve import serve
from worker.cli.cmd_show import show
from worker.cli.cmd_simulator import simulator
from worker.cli.cmd_skip import skip
from worker.cli.cmd_statement import statement
from worker.cli.cmd_status import status
from worker.cli.cmd_sweep import sweep
from worker.cli.cmd_up import up
from worker.cli.cmd_url import url
from worker.cli.cmd_verify import verify
from worker.cli.cmd_webhook import webhook
from worker.cli.shared import EXIT_CODES, ExitCode, fail
from worker.errors import SettingsError, SupervisorError

app = typer.Typer(
    name="archiver",
    help="Saves every 100ms recording asset, whole and verified, in your own bucket before its retention ends.",
    epilog=f"Exit codes: {EXIT_CODES} Settings come from the environment and .env; .env.example explains each.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Archive": (demo, init, up, run, serve, plan, sweep, backfill, archive, webhook),
    "Restore": (restore, url, drill),
    "Inspect and check": (
        status,
        list_assets,
        show,
        alerts,
        events,
        verify,
        doctor,
        reconcile,
        rebuild,
        replicate,
        scrub,
        catalogue,
        statement,
    ),
    "Decide": (retry, accept, reject, skip, ack, erase, expire, adopt),
    "Operate": (pause, resume, drain),
}
"""In the order of the help, by its sections."""


def main() -> None:
    """Run the `archiver` command and end the process with an `ExitCode`. An expected error is one message on stderr,
    without a traceback."""
    try:
        app()
    except (SettingsError, BadDestinationUrl, UnusableCaFile, LedgerOfAnotherWorkspace) as error:
        fail(error, ExitCode.WRONG_SETTINGS)
    except (LedgerError, HmsError, StorageError, SupervisorError) as error:
        fail(error, ExitCode.UNREACHABLE)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"archiver {version('recording-archiver')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options that come before the command."""


def name_of(command: Callable[..., None]) -> str:
    """Return the name that a user types. `list` is a built-in of Python, so its function has a longer name."""
    return command.__name__.removesuffix("_assets")


def _add(command: Callable[..., None], section: str) -> None:
    """Register `command`. Its docstring is its help; the lines below "Examples:" are printed as they are."""
    description, _, examples = inspect.cleandoc(command.__doc__ or "").partition("Examples:\n")
    paragraphs = [" ".join(paragraph.split()) for paragraph in description.strip().split("\n\n")]
    lines = [f"  [cyan]{escape(line.strip())}[/]" for line in examples.splitlines()]
    app.command(
        name_of(command),
        help="\n\n".join(paragraphs),
        epilog="\n".join(["Examples:", *lines]),
        rich_help_panel=section,
    )(command)


for _section, _commands in COMMANDS.items():
    for _command in _commands:
        _add(_command, _section)
app.command(
    add_help_option=False,  # the simulator has its own
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    rich_help_panel="Develop",
)(simulator)
