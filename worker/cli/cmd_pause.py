"""`archiver pause`, `archiver resume` and `archiver drain`."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.opening import open_ledger
from worker.cli.shared import By, ExitCode, Json, Why, err, out, print_json, read_settings

if TYPE_CHECKING:
    from worker.settings import Settings

Target = Annotated[
    str, typer.Argument(metavar="[DESTINATION|all]", help="A destination as `status` names it. Default: all.")
]
_POLL_SECONDS = 1


def pause(target: Target = "all", why: Why = "", by: By = "", as_json: Json = False) -> None:
    """Copy nothing to a destination, or nothing at all, until `archiver resume`, for 24 hours at most.

    Copies that run now end first (`archiver drain` waits for them). Sweeps, and alarms for deadlines, go on: a pause
    does not make 100ms keep a recording longer. Assets that wait lose no attempt. Idempotent.

    Examples:
      archiver pause --why 'moving the bucket'
      archiver pause s3://bucket/archive
    """
    from archiver.core.destinations import breaker

    settings = read_settings()
    name = _name(settings, target)
    with open_ledger(settings) as ledger:
        until = breaker.pause(ledger, name, by=_who(by), why=why, now=ledger.now())
    if as_json:
        print_json(json.dumps({"paused": name, "until": until.isoformat()}))
    else:
        out.print(f"Paused: {name}, until {until:%Y-%m-%d %H:%M} UTC or `archiver resume`.")


def resume(target: Target = "all", as_json: Json = False) -> None:
    """End a pause. Without a name, every pause ends. Idempotent.

    Examples:
      archiver resume
      archiver resume s3://bucket/archive
    """
    from archiver.core.destinations import breaker

    settings = read_settings()
    name = _name(settings, target)
    with open_ledger(settings) as ledger:
        opened = breaker.opened(ledger, ledger.now())
        paused = [
            other
            for other, each in opened.items()
            if each.code == breaker.PAUSED and name in (other, breaker.EVERYTHING)
        ]
        for other in paused:
            breaker.close(ledger, other)
    if as_json:
        print_json(json.dumps({"resumed": paused}))
    else:
        out.print(f"Resumed: {', '.join(paused)}." if paused else "Nothing was paused.")


def drain(
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait at most for running copies; 0 for as long as it takes."),
    ] = 0,
    why: Why = "for a deployment",
    by: By = "",
) -> None:
    """Take nothing new, and wait until nothing is being copied: before a deployment. Then `archiver resume`.

    Exit code 0 when nothing is being copied any more, 1 when copies still run after --wait seconds. A copy that is
    interrupted all the same is resumed where it was.

    Examples:
      archiver drain && deploy && archiver resume
    """
    from archiver.core.destinations import breaker
    from archiver.ledger.models import AssetState

    settings = read_settings()
    with open_ledger(settings) as ledger:
        breaker.pause(ledger, breaker.EVERYTHING, by=_who(by), why=why, now=ledger.now())
        until = time.monotonic() + wait if wait else None
        shown = None
        while running := ledger.counts().states.get(AssetState.RUNNING, 0):
            if running != shown:
                err.print(f"{running} being copied ...", style="dim")
                shown = running
            if until is not None and time.monotonic() >= until:
                out.print(f"{running} still being copied. Nothing new is taken until `archiver resume`.")
                sys.exit(ExitCode.NOT_SAVED)
            time.sleep(_POLL_SECONDS)
    out.print("Nothing is being copied, and nothing new is taken until `archiver resume` (24 hours at most).")


def _name(settings: Settings, target: str) -> str:
    from archiver.core.destinations import breaker
    from storage_backends.destination_url import parse_destination

    names = [parse_destination(url).name for url in settings.destinations]
    if target != breaker.EVERYTHING and target not in names:
        raise typer.BadParameter(
            f"{target} is no destination. Name one of {', '.join([breaker.EVERYTHING, *names])}"
        )
    return target


def _who(by: str) -> str:
    import getpass
    import socket

    return by or f"{getpass.getuser()}@{socket.gethostname()}"
