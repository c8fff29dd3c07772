"""`archiver erase`."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.copying import cancelled_by_signal
from worker.cli.fleet import older_workers
from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import By, ExitCode, Json, err, out, print_json, read_settings, time_of

if TYPE_CHECKING:
    from archiver.core.upkeep.erasing import Removal
    from archiver.ledger.base import Assets, Ledger
    from archiver.ledger.models import Row
    from worker.services import AppServices
    from worker.settings import Settings

_SHOWN = 20  # of what is to be erased, before the question


def erase(
    asset_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Asset ids.", show_default=False)
    ] = None,
    ids_from: Annotated[
        str,
        typer.Option("--ids-from", metavar="FILE", help="Asset ids from a file, one a line; - for stdin."),
    ] = "",
    session: Annotated[str, typer.Option("--session", help="All assets of this session id.")] = "",
    user: Annotated[
        str,
        typer.Option(
            "--user",
            metavar="USER_ID",
            help="The recordings of this user alone, by the sessions that are kept.",
        ),
    ] = "",
    shared: Annotated[
        bool, typer.Option("--shared", help="With --user: also what others are, or may be, in.")
    ] = False,
    room: Annotated[str, typer.Option("--room", help="All assets of this room id.")] = "",
    asset_type: Annotated[str, typer.Option("--type", help="Of those, only of this type.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="All, or of those only what was created since.")
    ] = "",
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="All, or of those only what was created before.")
    ] = "",
    reason: Annotated[
        str, typer.Option("--reason", metavar="TICKET", help="A ticket code, such as GDPR-123; never a name.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, however many there are.")] = False,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Erase assets for good, at every destination: objects, older versions, manifests and every other record.

    A tombstone without personal data stays, so that nothing brings them back: `archiver archive --un-erase ID` alone
    does, while 100ms has them. Lists what it would erase, and asks. Idempotent: killed half-way, run it again, or let
    the next reconcile finish it. Exit code 1 when something is left, such as what Object Lock keeps: it is named, with
    the date.

    Examples:
      archiver erase 6400c0d3e1b2a3c4d5e6f708 --reason GDPR-123
      archiver erase --user user-17 --reason GDPR-123
      archiver erase --room 6501aa01 --until 2026-01-01 --reason GDPR-123 --yes
      archiver erase --ids-from ids.txt --reason GDPR-123 --yes
    """
    from archiver.core.records.tombstones import is_ticket
    from worker.views.text import shown

    chosen = bool(session or room or asset_type or since or until)
    if [bool(asset_ids), bool(ids_from), bool(user), chosen].count(True) != 1:
        raise typer.BadParameter(
            "give one or more IDs, or --ids-from, or --user, or one or more of --session, --room, --type, --since and "
            "--until"
        )
    if shared and not user:
        raise typer.BadParameter("it belongs to --user", param_hint="--shared")
    if not is_ticket(reason):
        raise typer.BadParameter(
            "give a ticket code, such as GDPR-123 or #4711: it stays in the tombstone, so it must be no name, address "
            "or sentence",
            param_hint="--reason",
        )
    first, last = (
        time_of(text, name) if text else None for text, name in ((since, "--since"), (until, "--until"))
    )
    given = _ids_from(ids_from) if ids_from else (asset_ids or [])
    settings = read_settings()
    by = by or f"{getpass.getuser()}@{socket.gethostname()}"
    if older := older_workers(settings):
        err.print(
            f"These workers run an older version, which may archive again what is erased: {', '.join(older)}. Upgrade "
            "and restart them first.",
            style="bold red",
        )
        sys.exit(ExitCode.NOT_SAVED)
    with cancelled_by_signal(
        "Stopping after this batch; run the same command again for the rest."
    ) as cancelled:
        with open_services(settings, own_ledger=True, stop_requested=cancelled.is_set) as services:
            stored: dict[str, Row] = {}
            if user:
                stored = _of_user(services, settings, user, shared=shared, quiet=as_json)
                ids = list(stored)
            elif chosen:
                ids = _chosen(services.ledger, session, room, asset_type, first, last)
            else:
                ids = list(dict.fromkeys(given))
            if chosen and (unsure := _unsure(services.ledger, services.clock())):
                err.print(unsure, style="red")
                sys.exit(ExitCode.NOT_SAVED)
            if not ids:
                none = (
                    f"No recording of {user} alone: nothing to erase."
                    if user
                    else "No such asset, or all of them are erased."
                )
                err.print(shown(none))
                sys.exit(ExitCode.OK)
            if not yes and not _confirmed(services.ledger, ids, stored):
                err.print("Nothing was changed.")
                sys.exit(ExitCode.NOT_SAVED)
            done = left = 0
            with progress_shown(quiet=as_json) as on_progress:
                for removal in services.eraser.erase(
                    ids,
                    ticket=reason,
                    by=by,
                    on_progress=on_progress,
                    total=len(ids),
                    cancelled=cancelled.is_set,
                ):
                    done, left = done + removal.is_done, left + (not removal.is_done)
                    _print(removal, as_json=as_json)
        if not as_json:
            parts = [f"{done:,} erased"]
            if left:
                parts.append(f"{left:,} not erased completely")
            if not_started := len(ids) - done - left:
                parts.append(f"{not_started:,} not started")
            out.print(f"{', '.join(parts)}.")
        if cancelled.is_set() and done + left < len(ids):
            sys.exit(ExitCode.INTERRUPTED)
    sys.exit(ExitCode.NOT_SAVED if left else ExitCode.OK)


def _ids_from(path: str) -> list[str]:
    """Read ids, one a line; empty lines and those that begin with # are left out. Raises BadParameter."""
    hint = "--ids-from"
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise typer.BadParameter(f"{path} cannot be read: {why}", param_hint=hint) from None
    ids = []
    for number, line in enumerate(text.splitlines(), 1):
        asset_id = line.strip()
        if not asset_id or asset_id.startswith("#"):
            continue
        if len(asset_id.split()) > 1 or "," in asset_id:
            raise typer.BadParameter(f"line {number} of {path} is not one id", param_hint=hint)
        ids.append(asset_id)
    if not ids:
        raise typer.BadParameter(f"{path} holds no id", param_hint=hint)
    return ids


def _of_user(
    services: AppServices, settings: Settings, user: str, *, shared: bool, quiet: bool
) -> dict[str, Row]:
    """Say what is spared."""
    from archiver.core.upkeep.user_recordings import recordings_of
    from worker.views.text import shown

    with progress_shown(quiet=quiet) as on_progress:
        found = recordings_of(
            services.ledger,
            services.destinations,
            user,
            on_progress,
            retention=settings.retention,
            key_template=settings.key_template,
        )
    if shared:
        return {row.asset_id: row for row in (*found.own, *found.shared)}
    if found.shared:
        is_one = len(found.shared) == 1
        number = "1 recording is" if is_one else f"{len(found.shared):,} recordings are"
        them = "it" if is_one else "them"
        text = (
            f"{number} spared: others are, or may be, in {them}. `archiver list --user {user}` shows {them}, and "
            f"session.json still names the user there; --shared erases {them}, too."
        )
        err.print(shown(text, "yellow"))
    return {row.asset_id: row for row in found.own}


def _chosen(
    ledger: Assets, session: str, room: str, asset_type: str, first: datetime | None, last: datetime | None
) -> list[str]:
    """Ids alone, so that a hundred thousand fit in memory. None without a date when a time is asked for."""
    from archiver.ledger.models import AssetState

    states = [state for state in AssetState if state not in (AssetState.ERASED, AssetState.EXPIRED)]
    chosen = (
        row.asset_id
        for row in ledger.rows(states)
        if session in ("", row.session_id)
        and room in ("", row.room_id)
        and asset_type in ("", row.type)
        and (first is None or (row.created_at is not None and row.created_at >= first))
        and (last is None or (row.created_at is not None and row.created_at < last))
    )
    return list(dict.fromkeys(chosen))  # one that changes its state meanwhile is seen twice


def _unsure(ledger: Ledger, now: datetime) -> str:
    """Return why the ledger may not know every asset of a session, room or time; nothing if it does."""
    from archiver.core.upkeep.reports import RECONCILE_OVERDUE, reconcile_is_overdue

    if not ledger.counts().seen:
        return "The ledger is empty, and finds no asset: run `archiver rebuild` first."
    if not reconcile_is_overdue(ledger, now):
        return ""
    hours = RECONCILE_OVERDUE // timedelta(hours=1)
    return (
        f"Nothing was erased. The ledger was not compared with the destinations in the last {hours} hours and may not "
        "know every asset there: run `archiver reconcile`, then this again."
    )


def _confirmed(ledger: Assets, ids: Sequence[str], known: Mapping[str, Row]) -> bool:
    from worker.views.text import shown

    for asset_id in ids[:_SHOWN]:
        err.print(shown(_line(asset_id, known.get(asset_id) or ledger.get(asset_id))))
    if len(ids) > _SHOWN:
        err.print(f"... and {len(ids) - _SHOWN:,} more.")
    if not sys.stdin.isatty():
        raise typer.BadParameter("nothing was erased. Nobody can be asked here: add --yes")
    what = "this asset" if len(ids) == 1 else f"these {len(ids):,} assets"
    return typer.confirm(f"Erase {what} for good, at every destination?", err=True)


def _line(asset_id: str, row: Row | None) -> str:
    from worker.views.text import size

    if row is None:
        return f"{asset_id}  (the ledger does not know it; its manifest is looked up)"
    created = f"{row.created_at:%Y-%m-%d %H:%M}" if row.created_at else "without a date"
    return (
        f"{asset_id}  {row.type}  {row.state}  {created}  {size(row.stored_bytes)}  room {row.room_id}  session "
        f"{row.session_id}"
    )


def _print(removal: Removal, *, as_json: bool) -> None:
    from worker.views.text import shown

    if as_json:
        until = removal.locked_until.isoformat() if removal.locked_until else None
        fields = {"asset_id": removal.asset_id, "state": removal.state, "reason": removal.reason}
        print_json(json.dumps({**fields, "locked_until": until}))
    elif removal.state is None:
        err.print(shown(f"{removal.asset_id}: {removal.reason}.", "red"))
    elif not removal.is_done:
        err.print(shown(f"{removal.asset_id} is not erased yet: {removal.reason}", "red"))
