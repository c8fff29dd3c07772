"""`archiver ...`: what people type. Answers go to stdout (JSON with --json), logs to stderr.

What a command needs is imported by it: the help must not wait for Celery, nor `status` for what copies.

Exit codes: 0 all is well · 1 something is not saved, or a check found a problem · 2 the command line or a setting is
wrong, or credentials are missing · 3 something that is needed (broker, API, destination) cannot be reached, or refuses
us · 130 interrupted.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from archiver.core.errors import ManifestError
from archiver.hms.errors import HmsError, HmsGarbled
from archiver.http.trust import UnusableCaFile
from archiver.ledger.errors import LedgerError
from archiver.ledger.models import SETTLED_STATES, Row
from storage_backends.errors import BadDestinationUrl, StorageError
from worker.errors import SettingsError, SupervisorError
from worker.escaping import escaped
from worker.findings import Verdict
from worker.interrupts import lasting_interrupt

if TYPE_CHECKING:
    from archiver.ledger.redis.ledger import RedisLedger
    from storage_backends.base import ObjectKey, StorageBackend
    from worker.bootstrap import AppServices
    from worker.child import ProcessStatus
    from worker.embedded import Supervisor
    from worker.run_once import OneRun
    from worker.settings import Settings

MOST_DOUBTS = 50  # printed of one manifest
MAX_EVENT_BYTES = 4 * 1024 * 1024  # a webhook has some kilobytes
OK, NOT_SAVED, WRONG_SETTINGS, NOT_SERVED, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="archiver",
    help="Saves every 100ms recording asset, whole and verified, in your own bucket before its retention ends.",
    epilog="Exit codes: 0 all is well; 1 something is not saved or a check found a problem; 2 the command line or a "
    "setting is wrong, or credentials are missing; 3 the broker, the API or a destination cannot be reached, or "
    "refuses the credentials; 130 interrupted. Settings come from the environment and .env; .env.example explains "
    "each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console()
err = Console(stderr=True)


def _command(*examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose help is its docstring, flowing to the terminal's width, and examples."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        epilog = "\n".join(["Examples:", *(f"  [cyan]{escape(example)}[/]" for example in examples)])
        app.command(help=text, epilog=epilog)(function)
        return function

    return register


Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
AssetIds = Annotated[
    list[str], typer.Argument(metavar="ID", help="Asset ids, as 100ms and `status` show them.")
]


Why = Annotated[str, typer.Option("--why", help="The reason, for whoever asks later.", show_default=False)]
By = Annotated[
    str, typer.Option("--by", help="Who says so. Default: the user who runs this.", show_default=False)
]


def main() -> None:
    """The `archiver` command. Ends the process with one of the exit codes above; an expected failure is one
    message without a traceback."""
    try:
        app()
    except (SettingsError, BadDestinationUrl, UnusableCaFile) as error:
        _fail(error, WRONG_SETTINGS)
    except (LedgerError, HmsError, StorageError, SupervisorError) as error:
        _fail(error, NOT_SERVED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


# -- running it ----------------------------------------------------------------------------------------------
@_command("archiver demo", "archiver demo --keep      and look at Flower")
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay up afterwards, with Flower, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Archive one simulated asset of every type into ./archive-demo, with real workers and a real broker.

    Needs no account and no setting. Starts a simulated 100ms, an embedded Valkey, workers, beat and Flower; shows
    what is being copied; ends with a table, and exit code 0 when every asset ended as it should.
    """
    from worker import demo as demonstration

    sys.exit(OK if demonstration.run(out, keep=keep, as_json=as_json) else NOT_SAVED)


@_command("archiver up", "archiver up --simulator   without an account")
def up(
    with_simulator: Annotated[
        bool,
        typer.Option(
            "--simulator",
            help="Use a simulated 100ms, with a destination and a state of its own, whatever is configured.",
        ),
    ] = False,
) -> None:
    """Run everything on this machine: broker (unless ARCHIVER_REDIS_URL is set), workers, beat, Flower.

    Stays in the foreground; Ctrl-C stops it in order, and what was half-way goes on at the next start. For several
    machines run the processes one by one, as docker-compose.yml does.
    """
    from worker import demo as demonstration
    from worker.broker import check_state_dir
    from worker.embedded import FlowerOptions, Supervisor

    settings = _settings()
    if with_simulator:
        settings = demonstration.apart(settings)
    else:
        _need_credentials(settings)
    check_state_dir(settings)
    companions, environment = demonstration.simulator(settings) if with_simulator else ([], dict(os.environ))
    flower = FlowerOptions(
        settings.flower_address,
        settings.flower_port,
        settings.flower_basic_auth.get_secret_value() if settings.flower_basic_auth else None,
    )
    with Supervisor(
        settings.state_dir,
        environment=environment,
        redis_url=settings.redis_url.get_secret_value() if settings.redis_url else None,
        flower=flower,
        companions=companions,
        on_fall=_say_what_fell,
    ) as supervisor:
        err.print("Starting ...", style="dim")
        supervisor.start()
        _say_what_is_up(settings, supervisor, simulated=with_simulator)
        supervisor.wait()
        err.print("Stopping ...", style="dim")


@_command("archiver run --once", "archiver run --once --wait 0 --json   from cron")
def run(
    once: Annotated[bool, typer.Option("--once", help="Required: sweep, archive what is due, exit.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for retries that fall due soon, before giving up.")
    ] = 120,
    as_json: Json = False,
) -> None:
    """Sweep once, archive all that is due in this process, and exit. For cron, and to see it work.

    Exit code 0 when every asset ever seen ended archived, skipped, external, rejected or acknowledged, and `status`
    finds no other problem; 3 when the API or a destination cannot be reached; else 1. With --json the last line is
    {"seen": n, "states": {...}, "bytes": n}.

    From cron, set ARCHIVER_SWEEP_SECONDS to its interval, so that `status` knows when a sweep is late.
    """
    if not once:
        raise typer.BadParameter("say `archiver run --once`; to run all the time: `archiver up`")
    from archiver.core.health import assess
    from archiver.core.upkeep.status import RAN_ONCE_FACT
    from archiver.core.upkeep.watch import note
    from worker import rendering
    from worker.run_once import result_json

    settings = _need_credentials(_settings())
    with _stoppable() as stop, _services(settings, stop_requested=stop.is_set) as (_, services):
        with _showing_progress(services, quiet=as_json):
            result = _one_run(settings, services, stop, wait).run()
        if not stop.is_set():
            note(services.ledger, RAN_ONCE_FACT, services.ledger.now())
        summary = services.watcher.summary()
        if as_json:
            print(json.dumps(result_json(result)))  # noqa: T201
        else:
            out.print(rendering.summary_view(summary))
            out.print(f"Copied {rendering.size(result.stored_bytes)}.")
        well = result.all_safe and assess(summary).healthy
        code = _code_of_run(services, all_safe=well, stopped=stop.is_set())
    sys.exit(code)


@_command("archiver sweep")
def sweep(as_json: Json = False) -> None:
    """Walk all pages of the API once and enter what is new. Copies nothing. Harmless to repeat."""
    with _services(_need_credentials(_settings())) as (_, services):
        result = services.sweeper.sweep(full=True)
        if result is None:
            err.print("Another sweep is at it; nothing done.")
        elif as_json:
            print(  # noqa: T201
                json.dumps({name: getattr(result, name) for name in result.__slots__})
            )
        else:
            out.print(
                f"{result.assets} assets on {result.pages} pages, {result.new} new, in {result.seconds:.1f} s."
            )


@_command("archiver archive 6400c0d3e1b2a3c4d5e6f708", "archiver archive --again 6400c0d3e1b2a3c4d5e6f708")
def archive(
    asset_ids: AssetIds,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Copy anew what is archived already, such as what `verify` found damaged."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Archive these assets now, in this process, whatever became of them before.

    A quarantined, rejected or lost asset is restarted. One that is archived already is compared with its manifest by
    names and sizes, and left alone when they agree; --again copies it anew, while 100ms still has it.
    """
    from archiver.ledger.models import AssetState
    from worker import rendering

    settings = _need_credentials(_settings())
    with _stoppable() as stop, _services(settings, stop_requested=stop.is_set) as (_, services):
        for asset_id in asset_ids:
            if again:
                _mark_damaged(services, asset_id)
            row = services.ledger.get(asset_id)
            is_kept = not again and row is not None and row.state is AssetState.QUARANTINED
            services.ledger.reopen(asset_id, keep_stored=is_kept)
        with _showing_progress(services, quiet=as_json):
            _one_run(settings, services, stop, 0).run(asset_ids)
        rows = [(asset_id, services.ledger.get(asset_id)) for asset_id in asset_ids]
        if as_json:
            print(json.dumps([rendering.row_json(row) if row else {"asset_id": i} for i, row in rows]))  # noqa: T201
        else:
            if known := tuple(row for _, row in rows if row):
                out.print(rendering.rows_view("", known, services.ledger.now()))
            for asset_id in (i for i, row in rows if row is None):
                err.print(rendering.shown(f"{asset_id}: 100ms does not know it.", "red"))
        all_safe = all(row and row.state in SETTLED_STATES for _, row in rows)
        code = _code_of_run(services, all_safe=all_safe, stopped=stop.is_set())
    sys.exit(code)


@_command(
    "archiver accept 6400c0d3e1b2a3c4d5e6f708 --why 'the meeting was recorded without sound'",
)
def accept(asset_ids: AssetIds, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """Call these quarantined assets archived: somebody has looked at what is stored and it is all there is.

    `archiver show ID` lists the doubts. The manifest keeps them, with who accepted them, when and why. Harmless to
    repeat. Exit code 1 when one of them is not stored whole at every destination.
    """
    from archiver.core.upkeep.review import accept as say

    _by_hand(say, asset_ids, why=why, by=by, as_json=as_json)


@_command("archiver reject 6400c0d3e1b2a3c4d5e6f708 --why 'an empty test recording'")
def reject(asset_ids: AssetIds, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """Call these assets worthless: they are not tried again, and nothing asks for them any more.

    For what is quarantined, waiting, damaged or lost. What is stored of them stays. `archiver archive ID` undoes it,
    while 100ms still has the asset. Harmless to repeat. Exit code 1 when one of them is archived.
    """
    from archiver.core.upkeep.review import reject as say

    _by_hand(say, asset_ids, why=why, by=by, as_json=as_json)


@_command(
    "archiver ack 6400c0d3e1b2a3c4d5e6f708 --why '100ms support: it cannot be restored'",
    "archiver ack --all source_failed --why 'reviewed, nothing was recorded'",
)
def ack(
    asset_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Asset ids, as `status` shows them.")
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--all", metavar="STATE", help="All that are in this state now.", show_default=False),
    ] = None,
    why: Why = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Acknowledge that these assets ended so: somebody has looked, and nothing more can be done about them.

    For what is lost, damaged, quarantined, source_failed or needs_source_access. It is still counted, `archiver show`
    says who acknowledged it, when and why, and it is no problem for `status` and the exit codes any more, until its
    state changes: an asset that is tried again and ends so once more asks again. Kept in the bucket too. Harmless to
    repeat. Exit code 1 when one of them is in no such end.
    """
    from archiver.core.upkeep.review import acknowledge
    from archiver.ledger.models import ACKNOWLEDGED_STATES

    if every is not None and every not in set(ACKNOWLEDGED_STATES):
        raise typer.BadParameter(f"one of {', '.join(sorted(ACKNOWLEDGED_STATES))}", param_hint="--all")
    if (every is None) == (not asset_ids):
        raise typer.BadParameter("say which: one or more IDs, or --all STATE")
    _by_hand(acknowledge, asset_ids or [], every=every, why=why, by=by, as_json=as_json)


@_command("archiver webhook event.json", "curl -s https://... | archiver webhook -")
def webhook(
    file: Annotated[
        typer.FileBinaryRead, typer.Argument(metavar="FILE|-", help="The body of the webhook.")
    ] = "-",  # type: ignore[assignment]
    as_json: Json = False,
) -> None:
    """Keep the thumbnails that an `hls.recording.success` webhook of 100ms brings.

    The API gives their storage paths without a signature; the webhook alone signs them. Call this from your webhook
    receiver, after it has checked the secret header and before the asset is archived, so at once. The URLs are kept
    sealed, for 3 days. Harmless to repeat.

    Exit code 1 when the event names no asset with thumbnails, 2 when it is no event.
    """
    from archiver.core.contents.thumbnails import webhook as webhook_thumbnails
    from archiver.hms.webhooks import parse_event

    try:
        event = parse_event(file.read(MAX_EVENT_BYTES))
    except HmsGarbled as error:
        raise typer.BadParameter(str(error)) from None
    with _services(_settings()) as (_, services):
        assets = webhook_thumbnails.remember(services.ledger, event)
    if as_json:
        print(json.dumps({"type": event.type, "thumbnails": len(event.thumbnails), "assets": assets}))  # noqa: T201
    elif assets:
        kept = (
            f"{len(event.thumbnails)} thumbnails are kept for {assets} assets: {', '.join(event.asset_ids)}."
        )
        out.print(Text(escaped(kept)))
    else:
        err.print(Text(escaped(f"The event {event.type} names no asset with thumbnails; nothing is kept.")))
    sys.exit(OK if assets else NOT_SAVED)


@app.command(
    add_help_option=False,  # the simulator has its own
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def simulator(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Run the simulated 100ms alone: API, storage with expiring URLs, CDN, sample recordings, named faults."""
    from archiver.simulator.__main__ import main as simulate

    sys.exit(simulate(arguments or [], program="archiver simulator"))


# -- looking at it -------------------------------------------------------------------------------------------
@_command("archiver status", "archiver status --watch", "archiver status --json | jq .needs_attention")
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show it anew each second.")] = False,
    as_json: Json = False,
) -> None:
    """Is everything saved? What is at risk, and by when? What is being copied?

    Exit code 0 when everything is known and nothing needs a person, else 1; each problem is told.
    """
    from archiver.core.health import assess
    from worker import rendering
    from worker.account import build_watcher

    settings = _settings()
    with _ledger(settings) as ledger:
        watcher = build_watcher(settings, ledger)
        summary = watcher.summary()
        if as_json:
            print(json.dumps(rendering.summary_json(summary)))  # noqa: T201
        elif not watch:
            out.print(rendering.summary_view(summary))
        else:
            view = rendering.summary_view(summary)
            with (
                lasting_interrupt() as interrupted,
                Live(view, console=out, auto_refresh=False, screen=out.is_terminal) as live,
            ):
                while not interrupted():
                    time.sleep(1)
                    live.update(rendering.summary_view(watcher.summary()), refresh=True)
            sys.exit(INTERRUPTED)
    sys.exit(assess(summary).exit_code)


@_command("archiver show 6400c0d3e1b2a3c4d5e6f708")
def show(asset_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """All that is known of one asset: its state and why, and what its manifest says at each destination."""
    from archiver.core.records import keys
    from archiver.core.records.manifest import read_manifest
    from storage_backends.registry import open_destinations
    from worker import rendering

    settings = _settings()
    with _ledger(settings) as ledger, ExitStack() as stack:
        row = ledger.get(asset_id)
        manifests: dict[str, dict[str, Any] | str | None] = {}
        if row is not None:
            for store in open_destinations(settings.destinations):
                stack.callback(store.close)
                try:
                    manifest = read_manifest(store, keys.manifest_key(asset_id, row.created_at))
                    manifests[store.name] = json.loads(manifest.to_bytes()) if manifest else None
                except (ManifestError, StorageError) as error:
                    manifests[store.name] = str(error)
    if as_json:
        print(json.dumps({"row": rendering.row_json(row) if row else None, "manifests": manifests}))  # noqa: T201
    elif row is None:
        err.print(
            rendering.shown(
                f"{asset_id} is not in the ledger. `archiver archive {asset_id}` asks 100ms for it."
            )
        )
    else:
        _show(row, manifests)
    sys.exit(OK if row is not None else NOT_SAVED)


@_command(
    "archiver verify",
    "archiver verify --quick",
    "archiver verify 6400c0d3e1b2a3c4d5e6f708 --json",
    "archiver verify --without-ledger   where there is no Redis",
)
def verify(
    asset_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="All, when none is named.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare names and sizes only; read nothing.")
    ] = False,
    without_ledger: Annotated[
        bool,
        typer.Option(
            "--without-ledger", help="Ask the destinations alone; what is wholly gone is not noticed."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Prove that what is archived is whole: read every byte back; compare with the manifests, and them with the ledger.

    What the ledger calls archived and has no manifest at a destination is named. A copy that was found damaged and is
    whole again is told to the ledger, which shows it as archived again. What cannot be read stops nothing else.

    Exit code 0 when all is whole and nothing is missing, 1 when something is not, 3 when something could not be
    checked or the ledger could not be asked.
    """
    from storage_backends.registry import open_destinations
    from worker.verify import Tally
    from worker.verify import verify as verify_all
    from worker.verify_view import checked_view, tally_view

    settings = _settings()
    destinations = open_destinations(settings.destinations)
    stored, trouble = (None, None) if without_ledger else _stored_by_the_ledger(settings)
    unknown = _unknown_destinations(settings, destinations) if stored is not None else []
    for said in unknown:
        err.print(Text(said, style="bold red"))
    tally = Tally()
    bad: set[str] = set()
    whole: set[str] = set()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json or not err.is_terminal) as progress:
        task = progress.add_task("verifying", total=None)
        checks = verify_all(
            destinations,
            asset_ids or [],
            quick=quick,
            stored=stored,
            found=lambda count: progress.update(task, total=count),
        )
        for checked in checks:
            progress.advance(task)
            tally.add(checked)
            if checked.problems:
                bad.add(checked.asset_id)
            elif checked.ok:
                whole.add(checked.asset_id)
            if as_json:
                print(  # noqa: T201
                    json.dumps({**{n: getattr(checked, n) for n in checked.__slots__}, "ok": checked.ok})
                )
            elif not checked.ok:
                out.print(checked_view(checked))
    if tally.restored:
        _tell_restored(settings, destinations, tally.restored, ask=not without_ledger)
    if stored is not None and not unknown:
        _note_verified(settings, bad, whole - bad, everything=not asset_ids and not tally.unchecked)
    for store in destinations:
        store.close()
    names = [store.name for store in destinations]
    if as_json:
        if trouble is not None:
            err.print(Text(f"Not compared with the ledger: {escaped(trouble)}", style="yellow"))
    else:
        out.print(
            tally_view(tally, named=asset_ids or [], quick=quick, stored=stored, ledger_trouble=trouble)
        )
    if not tally.copies and not tally.unchecked:
        err.print(Text(escaped(f"There is no manifest at {', '.join(names)}: nothing is archived.")))
    if unknown or tally.bad or tally.doubted or not (tally.copies or tally.unchecked):
        sys.exit(NOT_SAVED)
    sys.exit(NOT_SERVED if tally.unchecked or trouble is not None else OK)


@_command("archiver adopt file:///mnt/nas/recordings")
def adopt(
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="As ARCHIVER_DESTINATIONS or `doctor` names it.")
    ],
    as_json: Json = False,
) -> None:
    """Take a destination, as it is now, for the right one: a replaced disk, an emptied bucket, one of another ledger.

    Until then nothing is written to a destination that the ledger does not know, and nothing is concluded from what
    it lacks. Afterwards `reconcile` has copied there what 100ms still has; older assets are only counted. Harmless to
    repeat. Exit code 2 when it is not among ARCHIVER_DESTINATIONS.
    """
    from storage_backends.registry import open_destination

    with _services(_settings()) as (_, services):
        names = [store.name for store in services.stores]
        name = destination if destination in names else open_destination(destination).name
        if name not in names:
            raise typer.BadParameter(f"{name} is not among ARCHIVER_DESTINATIONS: {', '.join(names)}")
        marker = services.identities.adopt(name)
    if as_json:
        print(json.dumps({"destination": name, "id": marker.id}))  # noqa: T201
    else:
        out.print(Text(escaped(f"{name} is the destination from now on, with the id {marker.id}.")))


@_command("archiver reconcile", "archiver reconcile --yes   after a mass deletion that you know of")
def reconcile(
    yes: Annotated[
        bool, typer.Option("--yes", help="Believe that what is missing is gone, however much it is.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the ledger with the destinations and repair the difference. The workers do so each hour.

    When more than 20 assets and 2 % have lost a copy at once, it copies again what can be, and leaves the rest of the
    account as it is until --yes. Exit code 1 when it stopped so, or a copy was removed that 100ms cannot give again.
    """
    from dataclasses import asdict

    with _services(_settings()) as (_, services):
        result = services.reconciler.reconcile(believe=yes)
    if result is None:
        err.print("Another reconcile is running; nothing done.")
        return
    if as_json:
        print(json.dumps({**asdict(result), "stopped": result.stopped}))  # noqa: T201
    else:
        out.print(
            f"{result.manifests:,} assets have a manifest everywhere. {result.entered + result.found:,} entered, "
            f"{result.reopened:,} are due again, {result.missing_copies:,} lack a copy that 100ms cannot give any more."
        )
        if result.stopped:
            out.print(
                f"Stopped: {result.would_change:,} more would be called damaged or gone. Look at the destinations; if "
                "the copies are really gone: archiver reconcile --yes",
                style="bold red",
            )
    sys.exit(NOT_SAVED if result.stopped or result.damaged or result.unreadable else OK)


@_command("archiver doctor")
def doctor(as_json: Json = False) -> None:
    """Check everything the archiver depends on, and say how to fix what is wrong.

    Certificates, credentials and clock, a source (the first bytes of one recording), broker and its persistence, beat
    and workers, and each destination (write, read back, checksum, delete, conditional write, rule for unfinished
    uploads). Leaves nothing behind.
    """
    from worker import rendering
    from worker.bootstrap import build_scope
    from worker.doctor import examine

    worst = Verdict.OK
    found = []
    with _services(_settings(), check_broker=False) as (settings, services):
        for finding in examine(
            settings,
            api=services.api,
            ledger=services.ledger,
            destinations=services.stores,
            identities=services.identities,
            workers=_Workers(settings, services),
            scope=build_scope(settings),
            open_contents=services.open_contents,
        ):
            found.append(finding)
            worst = Verdict.PROBLEM if Verdict.PROBLEM in (worst, finding.verdict) else worst
            if not as_json:
                out.print(rendering.finding_view(finding))
    if as_json:
        print(json.dumps([{n: getattr(finding, n) for n in finding.__slots__} for finding in found]))  # noqa: T201
    sys.exit(NOT_SAVED if worst is Verdict.PROBLEM else OK)


# -- parts ---------------------------------------------------------------------------------------------------
def _settings() -> Settings:
    """Whoever looks at a terminal is shown what happens; of the events only the bad ones, unless ARCHIVER_LOG_LEVEL
    asks for more."""
    from worker.observability import log_uncaught_exceptions, setup_logging
    from worker.settings import load_settings

    settings = load_settings()
    if sys.stderr.isatty() and "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": "WARNING"})
    setup_logging(settings, cast(TextIO, _CurrentStderr()))
    log_uncaught_exceptions()
    return settings


class _CurrentStderr(io.TextIOBase):
    """What `sys.stderr` is at the moment: a live view takes its place, and prints above itself."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def _fail(error: Exception, code: int) -> None:
    from worker.redaction import redact

    # a message may have several lines; each is shown, and does nothing to the terminal
    lines = [escaped(line) for line in redact(str(error)).split("\n")]
    err.print(Text("archiver: ", style="bold red") + Text("\n".join(lines)))
    sys.exit(code)


def _need_credentials(settings: Settings) -> Settings:
    if not settings.has_credentials:
        raise SettingsError(
            "There are no 100ms credentials. Set HMS_ACCESS_KEY and HMS_SECRET (100ms dashboard, Developer section) in "
            "the environment or in .env;\nor try it on simulated recordings: archiver up --simulator, or archiver demo."
        )
    return settings


@contextmanager
def _services(
    settings: Settings, *, check_broker: bool = True, stop_requested: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Settings, AppServices]]:
    """Everything one process needs, to copy or to look at what copies."""
    from worker.bootstrap import build_services
    from worker.broker import broker_url

    with ExitStack() as stack:
        url = stack.enter_context(broker_url(settings))
        services = build_services(
            settings, redis_url=url, send=lambda _row, _urgent: None, stop_requested=stop_requested
        )
        stack.callback(services.close)
        if check_broker:
            services.ledger.ping()
        yield settings, services


@contextmanager
def _ledger(settings: Settings) -> Iterator[RedisLedger]:
    """The ledger alone, which answers."""
    from worker.account import build_ledger
    from worker.broker import broker_url

    with broker_url(settings) as url, closing(build_ledger(settings, url)) as ledger:
        ledger.ping()
        yield ledger


def _by_hand(
    say: Callable[..., Row],
    asset_ids: Sequence[str],
    *,
    why: str,
    by: str,
    as_json: bool,
    every: str | None = None,
) -> None:
    """`say` of each asset, what a person says of it. `every`: of all in that state instead, not yet acknowledged."""
    import getpass

    from archiver.core.destinations.guarded import guarded
    from archiver.core.errors import ReviewRefused
    from archiver.ledger.clock import LedgerClock
    from archiver.ledger.models import AssetState
    from storage_backends.registry import open_destinations
    from worker import rendering
    from worker.identities import build_identities

    settings = _settings()
    by = by or f"{getpass.getuser()}@{socket.gethostname()}"
    rows: list[Row] = []
    refusals: list[str] = []
    with _ledger(settings) as ledger, ExitStack() as stack:
        stores = open_destinations(settings.destinations)
        for store in stores:
            stack.callback(store.close)
        destinations = guarded(stores, build_identities(settings, ledger, stores, LedgerClock(ledger)))
        if every is not None:
            asset_ids = [row.asset_id for row in ledger.rows([AssetState(every)]) if not row.acknowledged]
        now = ledger.now()
        for asset_id in asset_ids:
            try:
                rows.append(say(ledger, destinations, asset_id, by=by, why=why, now=now))
            except ReviewRefused as error:
                refusals.append(str(error))
    if as_json:
        print(json.dumps({"assets": [rendering.row_json(row) for row in rows], "refused": refusals}))  # noqa: T201
    else:
        if rows:
            out.print(rendering.rows_view("", tuple(rows), now))
        for refusal in refusals:
            err.print(rendering.shown(refusal, "red"))
    sys.exit(NOT_SAVED if refusals else OK)


def _code_of_run(services: AppServices, *, all_safe: bool, stopped: bool) -> int:
    """Of a command that copied. What is not saved because something cannot be reached is NOT_SERVED, or WRONG_SETTINGS
    where credentials are missing, and said."""
    if all_safe:
        return OK
    if stopped:
        return INTERRUPTED
    missing = list(_not_served(services))
    for _, reason in missing:
        err.print(Text("archiver: ", style="bold red") + Text(escaped(reason)))
    return min((code for code, _ in missing), default=NOT_SAVED)


def _not_served(services: AppServices) -> Iterator[tuple[int, str]]:
    """Why the API or a destination does not serve us, each with its exit code. Asks them."""
    from archiver.core.destinations import holds
    from storage_backends.base import object_key
    from storage_backends.errors import CredentialsMissing

    held = holds.current(services.ledger, services.ledger.now())
    yield from ((NOT_SERVED, hold.reason) for hold in held.values())
    try:
        if holds.API not in held:
            services.api.check()
    except HmsError as error:
        yield NOT_SERVED, str(error)
    for store in services.destinations:
        try:
            store.stat(object_key("doctor/not-there"))
        except CredentialsMissing as error:
            yield WRONG_SETTINGS, f"{store.name}: {error}"
        except StorageError as error:
            if store.name not in held:
                yield NOT_SERVED, f"{store.name}: {error}"


def _mark_damaged(services: AppServices, asset_id: str) -> None:
    """An asset whose manifests prove nothing is copied anew. Not when 100ms has deleted it: a damaged copy is better
    than none, and so it stays until the new one is whole."""
    from archiver.core.deadlines import is_over
    from archiver.core.records import keys
    from archiver.core.records.commit import mark_damaged

    row = services.ledger.get(asset_id)
    if row is None:
        return
    if is_over(row, services.ledger.now()):
        err.print(
            Text(
                f"{escaped(asset_id)}: its retention at 100ms has ended; what is archived stays as it is.",
                style="yellow",
            )
        )
        return
    for store in services.destinations:
        mark_damaged(store, keys.manifest_key(asset_id, row.created_at), ["archive --again was asked for"])


def _unknown_destinations(settings: Settings, destinations: Sequence[StorageBackend]) -> list[str]:
    """Of those that are not the ones that the ledger knows, a line each: what they hold or lack proves nothing."""
    from archiver.ledger.clock import LedgerClock
    from worker.identities import build_identities
    from worker.identity_finding import identity_finding

    try:
        with _ledger(settings) as ledger:
            identities = build_identities(settings, ledger, destinations, LedgerClock(ledger))
            found = [identity_finding(store.name, identities) for store in destinations]
    except (LedgerError, SettingsError, SupervisorError):  # told where the assets are compared
        return []
    wrong = [finding for finding in found if finding is not None and finding.verdict is Verdict.PROBLEM]
    return [f"{finding.subject} {finding.detail}. {finding.remedy}" for finding in wrong]


def _stored_by_the_ledger(settings: Settings) -> tuple[Mapping[str, ObjectKey] | None, str | None]:
    """What should be archived; or why nobody can say."""
    from worker.verify import stored_by

    if settings.redis_url is None and not settings.state_dir.exists():
        return (
            None,
            f"there is none in {settings.state_dir} (ARCHIVER_STATE_DIR), and ARCHIVER_REDIS_URL is not set.",
        )
    try:
        with _ledger(settings) as ledger:
            if ledger.counts().seen == 0:
                return None, "it is empty. The next sweep fills it again: archiver sweep"
            return stored_by(ledger), None
    except (LedgerError, SettingsError, SupervisorError) as error:
        return None, str(error)


def _note_verified(settings: Settings, bad: set[str], whole: set[str], *, everything: bool) -> None:
    from archiver.core.upkeep.reports import record_verify

    try:
        with _ledger(settings) as ledger:
            record_verify(ledger, damaged=bad, whole=whole, everything=everything)
    except (LedgerError, SettingsError, SupervisorError) as error:
        err.print(Text(f"`status` does not know of this: {escaped(str(error))}", style="yellow"))


def _tell_restored(
    settings: Settings, destinations: Sequence[StorageBackend], manifests: set[ObjectKey], *, ask: bool
) -> None:
    """`ask`: whether the ledger may be asked."""
    from archiver.core.destinations.guarded import guarded
    from archiver.core.upkeep.reconcile import Reconciler
    from archiver.ledger.clock import LedgerClock
    from worker.bootstrap import build_scope
    from worker.identities import build_identities

    later = "What is whole again is not in the ledger yet; `reconcile` sees to it within the hour"
    if not ask:
        err.print(f"{later}.", style="yellow")
        return
    try:
        with _ledger(settings) as ledger:
            clock = LedgerClock(ledger)
            identities = build_identities(settings, ledger, destinations, clock)
            Reconciler(
                ledger=ledger,
                destinations=guarded(destinations, identities),
                scope=build_scope(settings),
                clock=clock,
                identities=identities,
            ).restored(manifests)
    except (LedgerError, SettingsError, SupervisorError) as error:
        err.print(Text(escaped(f"{later}: {error}"), style="yellow"))


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Within the block, Ctrl-C and SIGTERM ask for an orderly end; a second one insists."""
    stop = threading.Event()

    def ask(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        err.print("Stopping; what is half-way goes on at the next run. Again to insist.", style="dim")

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _one_run(settings: Settings, services: AppServices, stop: threading.Event, wait: float) -> OneRun:
    from archiver.ledger.clock import LedgerClock
    from worker.run_once import OneRun

    return OneRun(
        reconciler=services.reconciler,
        sweeper=services.sweeper,
        archiver=services.archiver,
        ledger=services.ledger,
        concurrency=settings.worker_concurrency,
        patience=timedelta(seconds=wait),
        clock=LedgerClock(services.ledger),
        stop=stop,
    )


@contextmanager
def _showing_progress(services: AppServices, *, quiet: bool) -> Iterator[None]:
    """A live view on stderr while the block runs, when there is a terminal to show it."""
    if quiet or not err.is_terminal:
        yield
        return
    from worker import rendering

    ended = threading.Event()

    def refresh(live: Live) -> None:
        while not ended.wait(0.5):
            live.update(rendering.summary_view(services.watcher.summary()), refresh=True)

    with Live(console=err, transient=True, auto_refresh=False) as live:
        thread = threading.Thread(target=refresh, args=(live,), name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=5)


def _say_what_is_up(settings: Settings, supervisor: Supervisor, *, simulated: bool) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for process in supervisor.status():
        table.add_row(process.name, str(process.state), f"pid {process.pid}", Text(process.log.name))
    out.print(table)

    def say(name: str, what: str) -> None:
        out.print(Text(f"{name + ':' if name else '':<14}{escaped(what)}"), soft_wrap=True)  # to be copied

    say("Logs", str(settings.state_dir / "logs"))
    say("Destinations", ", ".join(settings.destinations))
    say("Broker", supervisor.broker_address)
    wanted = settings.flower_port
    taken = f" (port {wanted} is taken)" if wanted and f":{wanted}" not in str(supervisor.flower_url) else ""
    say("Flower", f"{supervisor.flower_url}{taken}")
    if supervisor.flower_password_file:
        say("", f"user and password are in {supervisor.flower_password_file}")
    for companion in supervisor.companions:
        say(companion.name.capitalize(), companion.ready_url)
    say("Look", f"{f'ARCHIVER_STATE_DIR={settings.state_dir} ' if simulated else ''}archiver status --watch")
    say("Stop", "Ctrl-C")


def _say_what_fell(process: ProcessStatus) -> None:
    """Called in the supervisor's thread, at each fall of a process."""
    times = "once" if process.falls == 1 else f"{process.falls} times"
    err.print(
        Text(f"{time.strftime('%H:%M:%S')} {process.name} ended ({process.last_exit}), ", style="bold red")
        + Text(f"{times} so far, and is started again. Its log: {process.log}")
    )


def _show(row: Row, manifests: dict[str, dict[str, Any] | str | None]) -> None:
    from worker import rendering
    from worker.rendering import shown

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    told = rendering.row_json(row)
    if row.acknowledged is not None:
        told["acknowledged"] = rendering.in_words(row.acknowledged)
    for name, value in told.items():
        if value not in (None, [], "", 0, 0.0):
            style = rendering.state_style(row.state) if name == "state" else ""
            table.add_row(name, shown(value, style))
    out.print(table)
    for destination, manifest in manifests.items():
        if not isinstance(manifest, dict):
            out.print()
            out.print(shown(f"{destination}: {manifest or 'no manifest'}", "yellow"))
            continue
        objects: Sequence[dict[str, Any]] = manifest["objects"]
        listing = Table(title=shown(f"{destination}/{manifest['folder']}"), title_justify="left")
        for column in ("object", "bytes", "crc32c", "content type"):
            listing.add_column(column, overflow="fold", justify="right" if column == "bytes" else "left")
        for item in objects[:50]:
            listing.add_row(
                shown(item["path"]), f"{item['size']:,}", shown(item["crc32c"]), shown(item["content_type"])
            )
        out.print(listing)
        if len(objects) > 50:
            out.print(f"... and {len(objects) - 50:,} more; --json shows all.")
        for problem in manifest.get("damage", []):
            out.print(shown(f"proves nothing any more: {problem}", "bold red"))
        if doubts := manifest.get("doubts", []):
            out.print(Text("Stored with doubts; not archived:", style="bold red"))
            for doubt in doubts[:MOST_DOUBTS]:
                out.print(shown(f"  {doubt}", "red"))
            if len(doubts) > MOST_DOUBTS:
                out.print(f"  ... and {len(doubts) - MOST_DOUBTS:,} more; --json shows all.")
            out.print(
                "`archiver accept ID --why ...` if it is all there is, `archiver reject ID` if it is worthless."
            )
        if accepted := manifest.get("accepted"):
            out.print(shown(f"accepted by {accepted['by']} at {accepted['at']}: {accepted['why']}", "yellow"))
            for doubt in accepted.get("doubts", [])[:MOST_DOUBTS]:
                out.print(shown(f"  in spite of: {doubt}", "yellow"))
        for warning in manifest.get("warnings", []):
            out.print(shown(f"warning: {warning}", "yellow"))


class _Workers:
    """Who answers over the broker within two seconds."""

    def __init__(self, settings: Settings, services: AppServices) -> None:
        self._settings = settings
        self._services = services

    def __call__(self) -> list[str]:
        from celery import Celery

        from worker.broker import broker_url
        from worker.celery_config import celery_settings

        with broker_url(self._settings) as url, Celery(set_as_current=False) as client:
            client.conf.update(celery_settings(broker_url=url, concurrency=1))
            answers = client.control.ping(timeout=2) or []
        return sorted(name for answer in answers for name in answer)
