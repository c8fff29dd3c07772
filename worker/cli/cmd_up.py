"""`archiver up`."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from worker.cli.shared import err, out, read_settings, require_credentials
from worker.logs.escaping import escaped

if TYPE_CHECKING:
    from worker.embedded.child import ProcessStatus
    from worker.embedded.supervisor import Supervisor
    from worker.settings import Settings


def up(
    with_simulator: Annotated[
        bool,
        typer.Option(
            "--simulator",
            help="Use a simulated 100ms, with a destination and state directory of its own, whatever is configured.",
        ),
    ] = False,
) -> None:
    """Run everything on this machine: broker (unless ARCHIVER_REDIS_URL is set), workers, beat, Flower, and
    `archiver serve` with alerts, webhooks and metrics.

    Stays in the foreground. Ctrl-C shuts it down; unfinished uploads are resumed at the next start. For several
    machines run the processes one by one, as docker-compose.yml does.

    Examples:
      archiver up
      archiver up --simulator   without an account
    """
    from worker.broker import check_state_dir
    from worker.embedded.flower import FlowerOptions
    from worker.embedded.serve import ServeOptions
    from worker.embedded.simulated import separated, simulator_of
    from worker.embedded.supervisor import Supervisor

    settings = read_settings()
    if with_simulator:
        settings = separated(settings)
    else:
        require_credentials(settings)
    _check_channels(settings)
    _check_destinations(settings)
    check_state_dir(settings)
    companions, environment = simulator_of(settings) if with_simulator else ([], dict(os.environ))
    flower = FlowerOptions(
        settings.flower_address,
        settings.flower_port,
        settings.flower_basic_auth.get_secret_value() if settings.flower_basic_auth else None,
        settings.flower_url_prefix or "",
    )
    with Supervisor(
        settings.state_dir,
        environment=environment,
        redis_url=settings.redis_url.get_secret_value() if settings.redis_url else None,
        redis_prefix=settings.redis_prefix,
        flower=flower,
        serve=ServeOptions(
            settings.serve_address, settings.serve_port, settings.metrics_address, settings.metrics_port
        ),
        companions=companions,
        on_crash=_print_crash,
    ) as supervisor:
        err.print("Starting ...", style="dim")
        try:
            supervisor.start()
            _print_addresses(settings, supervisor, simulated=with_simulator)
            supervisor.wait()
        except KeyboardInterrupt:
            _print_end(supervisor)
            raise
        _print_end(supervisor)


def _print_end(supervisor: Supervisor) -> None:
    """Say why it ends. The terminal may be gone: that must not keep it from ending in order."""
    number = supervisor.ended_by
    why = f"Received {number.name}" if number is not None else "Interrupted"
    if number is signal.SIGHUP:
        why += ", as when its terminal is closed (nohup, tmux or a service keeps it running)"
    with suppress(OSError):
        err.print(f"{why}. Stopping ...", style="dim")


def _check_channels(settings: Settings) -> None:
    """Refuse a wrong alert URL here, rather than in the log of a process. Raises SettingsError."""
    if settings.alert_urls:
        from worker.alerts.channels import open_channels

        open_channels(settings.channels)


def _check_destinations(settings: Settings) -> None:
    """As `_check_channels`, for an unknown option of a destination. Raises BadDestinationUrl."""
    from storage_backends.registry import open_destinations

    for store in open_destinations(settings.destinations):
        store.close()


def _print_addresses(settings: Settings, supervisor: Supervisor, *, simulated: bool) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for process in supervisor.status():
        table.add_row(process.name, str(process.state), f"pid {process.pid}", Text(process.log.name))
    out.print(table)

    def line(name: str, value: str) -> None:
        label = f"{name}:" if name else ""
        out.print(Text(f"{label:<14}{escaped(value)}"), soft_wrap=True)  # one line, to be copied

    line("Logs", str(settings.state_dir / "logs"))
    line("Destinations", ", ".join(settings.destinations))
    line("Broker", supervisor.broker_address)
    line("Flower", _with_port(str(supervisor.flower_url), settings.flower_port))
    if supervisor.flower_password_file:
        line("", f"user and password are in {supervisor.flower_password_file}")
    if supervisor.serve is not None:
        line("Webhooks", _with_port(f"{supervisor.serve.url}/webhooks/100ms", settings.serve_port))
        line("Metrics", _with_port(supervisor.serve.metrics_url, settings.metrics_port))
    for companion in supervisor.companions:
        line(companion.name.capitalize(), companion.ready_url)
    state, destinations = quote(str(settings.state_dir)), quote(",".join(settings.destinations))
    apart = f"ARCHIVER_STATE_DIR={state} ARCHIVER_DESTINATIONS={destinations} " if simulated else ""
    line("Look", f"{apart}archiver status --watch")
    line("Stop", "Ctrl-C")


def _with_port(url: str, wanted: int) -> str:
    """`url`, and that it has another port than `wanted`."""
    return f"{url} (port {wanted} is taken)" if wanted and f":{wanted}" not in url else url


def _print_crash(process: ProcessStatus) -> None:
    """Called in the supervisor's thread whenever a process exits unexpectedly."""
    times = "once" if process.crashes == 1 else f"{process.crashes} times"
    err.print(
        Text(f"{time.strftime('%H:%M:%S')} {process.name} exited ({process.last_exit}), ", style="bold red")
        + Text(f"{times} so far, and is restarted. Its log: {process.log}")
    )
