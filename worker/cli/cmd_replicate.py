"""`archiver replicate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.copying import cancelled_by_signal
from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings, time_of

if TYPE_CHECKING:
    from archiver.core.replication.replicator import ReplicateResult
    from archiver.core.replication.selection import Wanted
    from archiver.ledger.models import Row


def replicate(
    source: Annotated[
        str,
        typer.Option("--from", metavar="DESTINATION", help="Read this one first, by its name or URL."),
    ] = "",
    target: Annotated[
        str, typer.Option("--to", metavar="DESTINATION", help="Fill only this one, by its name or URL.")
    ] = "",
    room: Annotated[str, typer.Option("--room", help="Only of this room id.")] = "",
    session: Annotated[str, typer.Option("--session", help="Only of this session id.")] = "",
    asset_type: Annotated[
        str, typer.Option("--type", help="Only of this type, such as room-composite.")
    ] = "",
    state: Annotated[str, typer.Option("--state", help="Only in this state, such as damaged.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Created at this time or later.")
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Created before this time.")] = "",
    rate: Annotated[
        str, typer.Option("--rate", metavar="BYTES", help="The most read in a second, such as 50MB.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how much would be copied, and copy nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy what a destination lacks or has damaged from another one that has it whole, verified while it passes.

    Needs no 100ms: it works after the recordings are gone there. Damaged assets come first, then what the fewest
    destinations have. Where both are one store (two S3 buckets, two GCS buckets), the store copies by itself. An
    interrupted run is resumed by running it again; several at once share the work. The workers do the same each hour,
    within ARCHIVER_REPLICATE_BYTES a day. TIME is RFC 3339, or a date (UTC).

    Exit code 0 when all is where it should be, 1 when something is not, 3 when a destination does not take part.

    Examples:
      archiver replicate --dry-run
      archiver replicate --from s3://old/recordings --to s3://new/recordings
      archiver replicate --to gs://second --since 2026-03-01 --rate 50MB
    """
    from archiver.core.replication.selection import NAMED_STATES, Wanted
    from archiver.core.upkeep.reports import still_damaged
    from archiver.ledger.models import OPEN_STATES, AssetState
    from worker.limits import replicate_limit

    if state and state not in set(NAMED_STATES):
        raise typer.BadParameter(f"one of {', '.join(NAMED_STATES)}", param_hint="--state")
    first, last = (
        time_of(text, name) if text else None for text, name in ((since, "--since"), (until, "--until"))
    )
    per_second = _bytes(rate) if rate else None
    settings = read_settings()
    names = _names(settings.destinations)
    if len(names) < 2:
        raise typer.BadParameter(
            f"ARCHIVER_DESTINATIONS names one destination, {names[0]}: add the one to copy to"
        )
    source, target = (_named(text, names, name) for text, name in ((source, "--from"), (target, "--to")))
    if source and source == target:
        raise typer.BadParameter(f"is {source} too: name another one", param_hint="--to")

    def chooses(row: Row) -> bool:
        if (room and row.room_id != room) or (session and row.session_id != session):
            return False
        if asset_type and row.type != asset_type:
            return False
        at = row.created_at
        if at is None:
            return first is None and last is None
        return (first is None or at >= first) and (last is None or at < last)

    states = [AssetState(state)] if state else NAMED_STATES if target else None
    wanted = Wanted(source or None, target or None, chooses=chooses, combines=True)
    if states is not None:
        wanted = replace(wanted, states=states)
    with (
        cancelled_by_signal() as cancelled,
        open_services(settings, own_ledger=True, stop_requested=cancelled.is_set) as services,
        progress_shown(quiet=as_json) as progress,
    ):
        if dry_run:
            planned = services.replicator.plan(wanted)
        else:
            # what is there is compared first: the ledger may not know yet what a new destination lacks
            services.reconciler.reconcile(fill=False, on_progress=progress)
            limit = replicate_limit(settings, services.ledger, services.clock, per_second)
            everything = not (room or session or asset_type or state or since or until)
            result = services.replicator.replicate(
                wanted, records=everything, on_progress=progress, before_read=limit
            )
            unrepaired = [
                asset_id
                for asset_id in still_damaged(services.ledger)
                if (row := services.ledger.get(asset_id)) is not None
                and chooses(row)
                and row.state not in OPEN_STATES | {AssetState.DAMAGED}  # it is marked, and counted
            ]
    if dry_run:
        _print_plan(planned.assets, planned.size_bytes, as_json=as_json)
        return
    _print(result, wanted, unrepaired, as_json=as_json)
    if cancelled.is_set() and not result.complete:
        sys.exit(ExitCode.INTERRUPTED)
    if result.away:
        sys.exit(ExitCode.UNREACHABLE)
    sys.exit(ExitCode.OK if result.complete and not unrepaired else ExitCode.NOT_SAVED)


def _bytes(text: str) -> float:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = int(TypeAdapter(ByteSize).validate_python(text.removesuffix("/s")))
    except ValidationError:
        size = 0
    if size < 1:
        raise typer.BadParameter("write bytes a second with a unit, such as 50MB", param_hint="--rate")
    return size


def _names(urls: Sequence[str]) -> list[str]:
    from storage_backends.destination_url import parse_destination

    return [parse_destination(url).name for url in urls]


def _named(text: str, names: Sequence[str], option: str) -> str:
    """Return the destination's name; empty without one. Raises BadParameter."""
    from storage_backends.destination_url import parse_destination
    from storage_backends.errors import BadDestinationUrl

    if not text or text in names:
        return text
    try:
        name = parse_destination(text).name
    except BadDestinationUrl:
        name = text
    if name not in names:
        raise typer.BadParameter(
            f"{name} is not among ARCHIVER_DESTINATIONS: {', '.join(names)}. Add it, restart the workers, and run "
            "this again",
            param_hint=option,
        )
    return name


def _print_plan(assets: int, size_bytes: int, *, as_json: bool) -> None:
    from worker.views.text import size

    if as_json:
        print_json(json.dumps({"assets": assets, "bytes": size_bytes}))
    else:
        number = "1 asset" if assets == 1 else f"{assets:,} assets"
        out.print(f"{number} would be copied, {size(size_bytes)} to each destination that lacks them.")


def _print(result: ReplicateResult, wanted: Wanted, unrepaired: Sequence[str], *, as_json: bool) -> None:
    """`unrepaired`: ids of assets that `archiver verify` found damaged, where no manifest is marked yet."""
    from dataclasses import asdict

    from worker.views.text import shown, size

    if as_json:
        complete = result.complete and not unrepaired
        print_json(json.dumps({**asdict(result), "complete": complete, "found_damaged": list(unrepaired)}))
        return
    for asset_id, reason in result.failures.items():
        err.print(shown(f"{asset_id}: {reason}", "red"))
    for name, reason in result.away.items():
        err.print(shown(f"{name} takes no part any more: {reason}", "red"))
    parts = [f"{result.copied:,} copied ({size(result.copied_bytes)})"]
    parts += [f"{result.failed:,} failed"] if result.failed else []
    busy = f"{result.busy:,} in use by a worker, or by a run that was killed just now: run it again in some minutes"
    parts += [busy] if result.busy else []
    parts += [f"{result.open:,} due to be copied from 100ms by the workers"] if result.open else []
    parts += [f"{result.left:,} left: run it again"] if result.left else []
    out.print(f"{', '.join(parts)}.", highlight=False)
    if result.nowhere:
        which = "1 asset is" if result.nowhere == 1 else f"{result.nowhere:,} assets are"
        text = (
            f"{which} whole at no destination, and 100ms has deleted the source: `archiver list --state damaged` names "
            "them. Restore their objects from the bucket's versions, then `archiver verify ID`."
        )
        err.print(shown(text, "red"))
    if unrepaired:
        more = f" and {len(unrepaired) - 3:,} more" if len(unrepaired) > 3 else ""
        text = (
            f"Not repaired: {', '.join(unrepaired[:3])}{more}, found damaged by `archiver verify` and not yet marked. "
            "While 100ms has the recording: `archiver archive --again ID`; else the scrub marks the copy "
            "when it reads it next, and it is replicated then."
        )
        err.print(shown(text, "red"))
    elif result.complete:
        out.print(f"{wanted.target or 'Every destination'} has all that was asked for.", highlight=False)
