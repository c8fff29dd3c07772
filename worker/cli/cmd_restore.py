"""`archiver restore`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, fail, out, print_json, read_settings, time_of

if TYPE_CHECKING:
    from archiver.core.restore.restorer import Restored
    from archiver.core.restore.thawing import Thawing
    from worker.settings import Settings

_ASSET_ID = re.compile(r"[0-9a-f]{24}")
SPEEDS = ("standard", "bulk")


def restore(
    arguments: Annotated[
        list[str], typer.Argument(metavar="[ID]... DIR", help="Asset ids, and last the folder to restore to.")
    ],
    room: Annotated[str, typer.Option("--room", help="All assets of this room id.")] = "",
    session: Annotated[str, typer.Option("--session", help="All assets of this session id.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Created at this time or later.")
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Created before this time.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Everything that is archived.")] = False,
    source: Annotated[
        str,
        typer.Option("--from", metavar="DESTINATION", help="Only from this one, by its name or URL."),
    ] = "",
    bag: Annotated[bool, typer.Option("--bag", help="Make DIR a BagIt bag with SHA-256 (RFC 8493).")] = False,
    thaw: Annotated[
        str,
        typer.Option(
            "--thaw",
            metavar="standard|bulk",
            help="Ask the store to make cold objects (Glacier, Deep Archive) readable. It is billed.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Bring archived assets back: each to DIR/ROOM/SESSION/TYPE/ASSET/, verified while the bytes pass.

    Needs the destinations alone: no ledger, no 100ms. Directories are read first, then the destinations in their
    order; what one lacks or has damaged comes from another, object by object. What is in DIR and whole is kept, so an
    interrupted restore is resumed by running it again. TIME is RFC 3339, or a date (UTC). A room or session is found in
    the manifests: --since and --until make that faster.

    Exit code 0 when all is restored, 1 when something is not, or DIR is full, 3 when a destination cannot be reached.

    Examples:
      archiver restore 6400c0d3e1b2a3c4d5e6f708 restored/
      archiver restore --room 6501aa01 --since 2026-03-01 --until 2026-04-01 restored/
      archiver restore --session 6502bb02 --bag for-the-library/
      archiver restore --all --from gs://my-bucket/recordings /mnt/disk
    """
    from archiver.core.errors import FolderUnusable, RestoreError
    from archiver.core.restore.bag import PAYLOAD
    from archiver.core.upkeep.copies import Selection
    from storage_backends.errors import StorageError
    from worker import restoring
    from worker.views.restore import result_json, result_view, summary_view
    from worker.views.text import shown

    *asset_ids, target = arguments
    selection = Selection(
        tuple(dict.fromkeys(asset_ids)),
        room,
        session,
        time_of(since, "--since") if since else None,
        time_of(until, "--until") if until else None,
    )
    _check(selection.asset_ids, target, filtered=bool(room or session or since or until or everything))
    if thaw not in ("", *SPEEDS):
        raise typer.BadParameter("is standard or bulk", param_hint="--thaw")
    if selection.since and selection.until and selection.since >= selection.until:
        raise typer.BadParameter("is not before --until", param_hint="--since")
    settings = read_settings()
    results: list[Restored] = []
    away: list[StorageError] = []
    folder = Path(target)
    with ExitStack() as stack:
        stores = restoring.sources(settings.destinations, source)
        witnesses = restoring.all_of(settings.destinations, stores)
        for store in witnesses:
            stack.callback(store.close)
        if (inside := restoring.holds(stores, folder)) is not None:
            raise typer.BadParameter(f"{target} is inside the destination {inside}: choose another folder")
        try:
            with progress_shown(quiet=as_json) as progress:
                for result in restoring.restore(
                    stores,
                    selection,
                    folder,
                    as_bag=bag,
                    on_progress=progress,
                    away=away.append,
                    witnesses=witnesses,
                ):
                    results.append(_light(result))
                    if as_json:
                        print_json(json.dumps(result_json(result, folder / PAYLOAD if bag else folder)))
                    else:
                        out.print(result_view(result, folder / PAYLOAD if bag else folder), soft_wrap=True)
        except FolderUnusable as error:
            fail(error, ExitCode.WRONG_SETTINGS)
        except RestoreError as error:
            _note(settings, results, folder)
            fail(error, ExitCode.NOT_SAVED)
        for each in away:
            err.print(shown(f"What only this destination has is not restored: {each}", "red"))
        thawing = _thaw(results, thaw) if thaw else None
    _note(settings, results, folder)
    if as_json:
        print_json(json.dumps(_totals(results, thawing, complete=not away)))
    else:
        out.print(summary_view(results, folder, bag=bag, thawing=thawing, now=datetime.now(UTC)))
    failed = [result for result in results if not result.ok]
    if away or any(result.unreachable for result in failed):
        sys.exit(ExitCode.UNREACHABLE)
    sys.exit(ExitCode.NOT_SAVED if failed or not results else ExitCode.OK)


def _check(asset_ids: Sequence[str], target: str, *, filtered: bool) -> None:
    """Raises BadParameter when it does not say what to restore, or where to."""
    if _ASSET_ID.fullmatch(target) and not Path(target).exists():
        raise typer.BadParameter(f"name the folder after the ids; for a folder of this name: ./{target}")
    if not asset_ids and not filtered:
        raise typer.BadParameter(
            "name assets before the folder, or --room, --session, --since, --until or --all"
        )
    if target in ("", "-"):
        raise typer.BadParameter("name the folder to restore to")


def _light(result: Restored) -> Restored:
    """Drop the list of files: there may be millions."""
    result.files = {}
    return result


def _thaw(results: Sequence[Restored], speed: str) -> Thawing:
    from archiver.core.restore.thawing import request_thaws
    from storage_backends.optional import ThawSpeed

    cold = [each for result in results for each in result.cold]
    with progress_shown() as progress:
        progress("asking for cold objects", 0, len(cold))
        return request_thaws(cold, ThawSpeed(speed))


def _totals(results: Sequence[Restored], thawing: Thawing | None, *, complete: bool) -> dict[str, object]:
    from dataclasses import asdict

    found: dict[str, object] = {
        "restored": sum(result.ok for result in results),
        "failed": sum(not result.ok for result in results),
        "read_bytes": sum(result.read_bytes for result in results),
        "every_destination_was_listed": complete,
    }
    if thawing is not None:
        wait = thawing.wait.total_seconds() if thawing.wait is not None else None
        found["thaw"] = {**asdict(thawing), "wait": wait}
    return found


def _note(settings: Settings, results: Sequence[Restored], folder: Path) -> None:
    """Add a line to the history of what was restored, where there is a ledger that answers."""
    import getpass
    import socket
    from contextlib import closing

    from archiver.ledger.errors import LedgerError
    from worker.embedded.valkey import EmbeddedValkey
    from worker.ledger import build_ledger
    from worker.restoring import note_restored
    from worker.views.text import shown

    if settings.redis_url is not None:
        url: str | None = settings.redis_url.get_secret_value()
    else:  # that of a running `archiver up`; none is started for this
        url = EmbeddedValkey(settings.state_dir).url() if settings.state_dir.exists() else None
    whole = [result for result in results if result.ok]
    if url is None or not whole:
        return
    try:
        with closing(build_ledger(settings, url)) as ledger:
            ledger.ping()
            by = f"{getpass.getuser()}@{socket.gethostname()}"
            note_restored(ledger, whole, by=by, folder=folder.resolve())
    except (LedgerError, OSError) as error:
        if settings.redis_url is not None:
            err.print(shown(f"The history of these assets does not tell of it: {error}", "yellow"))
