"""`archiver run --once`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from worker.cli.copying import build_run, cancelled_by_signal, exit_code, status_shown
from worker.cli.opening import open_services
from worker.cli.shared import Json, out, print_json, read_settings, require_credentials


def run(
    once: Annotated[bool, typer.Option("--once", help="Required: sweep, archive what is due, exit.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for retries that fall due soon, before exiting.")
    ] = 120,
    as_json: Json = False,
) -> None:
    """Sweep once, archive everything that is due in this process, and exit. For cron, and for a first try.

    Exit code 0 when every asset ever seen ended archived, skipped, external, rejected or acknowledged, and `status`
    finds no other problem; 3 when the API or a destination cannot be reached; else 1. With --json the last line is
    {"seen": n, "states": {...}, "bytes": n}.

    From cron, set ARCHIVER_SWEEP_SECONDS to its interval, so that `status` knows when a sweep is late.

    Examples:
      archiver run --once
      archiver run --once --wait 0 --json   from cron
    """
    if not once:
        raise typer.BadParameter("type `archiver run --once`; to run all the time: `archiver up`")
    from archiver.core.health import assess
    from archiver.core.upkeep.status import RAN_ONCE_FACT
    from archiver.core.upkeep.watch import note
    from worker.alerts.alerter import Alerter
    from worker.alerts.channels import open_channels
    from worker.run_once import result_json
    from worker.views.status import summary_view
    from worker.views.text import size

    settings = require_credentials(read_settings())
    channels = open_channels(settings.channels) if settings.alert_urls else []
    with (
        cancelled_by_signal() as cancelled,
        open_services(settings, stop_requested=cancelled.is_set) as services,
    ):
        services.dead_mans_switch.start()
        try:
            with status_shown(services, quiet=as_json):
                result = build_run(settings, services, cancelled, wait).run()
        except BaseException:
            services.dead_mans_switch.fail()
            raise
        if not cancelled.is_set():
            services.session_keeper.keep()
            services.measure_clocks()
            note(services.ledger, RAN_ONCE_FACT, services.ledger.now())
            if result.all_listed:
                services.dead_mans_switch.success()
        summary = services.watcher.summary()
        Alerter(
            ledger=services.ledger,
            summarize=lambda: summary,
            channels=channels,
            digest_hour=settings.alert_digest_hour,
        ).look()
        if as_json:
            print_json(json.dumps(result_json(result)))
        else:
            out.print(summary_view(summary))
            out.print(f"Copied {size(result.stored_bytes)}.")
        well = result.all_safe and assess(summary).healthy
        code = exit_code(services, all_safe=well, cancelled=cancelled.is_set())
    sys.exit(code)
