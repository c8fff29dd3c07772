"""What the commands that decide share: record a person's decision for each asset and print the outcome."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import typer

from archiver.ledger.base import Assets
from archiver.ledger.models import Row
from worker.cli.opening import open_ledger
from worker.cli.shared import ExitCode, err, out, print_json, read_settings


def decide(
    record: Callable[..., Row | str],
    asset_ids: Sequence[str],
    *,
    why: str,
    by: str,
    as_json: bool,
    choose: Callable[[Assets], Iterable[Row]] | None = None,
    question: str = "",
) -> None:
    """Call `record` for each asset and end the process; it returns the row, or a sentence about what has none.
    `choose`: for the assets that it finds, instead of `asset_ids`, once a person has confirmed their number, when there
    is a `question`."""
    import getpass

    from archiver.core.destinations.guarded import guarded
    from archiver.core.errors import ReviewRefused
    from archiver.ledger.clock import LedgerClock
    from storage_backends.registry import open_destinations
    from worker.identities import build_identities
    from worker.views.rows import row_json, rows_view
    from worker.views.text import shown

    settings = read_settings()
    by = by or f"{getpass.getuser()}@{socket.gethostname()}"
    rows: list[Row] = []
    others: list[str] = []
    refusals: list[str] = []
    with open_ledger(settings) as ledger, ExitStack() as stack:
        stores = open_destinations(settings.destinations)
        for store in stores:
            stack.callback(store.close)
        destinations = guarded(stores, build_identities(settings, ledger, stores, LedgerClock(ledger)))
        if choose is not None:
            asset_ids = [row.asset_id for row in choose(ledger)]
            if (
                asset_ids
                and question
                and not typer.confirm(f"{question} {len(asset_ids):,} assets?", err=True)
            ):
                err.print("Nothing was changed.")
                sys.exit(ExitCode.NOT_SAVED)
        now = ledger.now()
        for asset_id in asset_ids:
            try:
                done = record(ledger, destinations, asset_id, by=by, why=why, now=now)
                if isinstance(done, str):
                    others.append(done)
                else:
                    rows.append(done)
            except ReviewRefused as error:
                refusals.append(str(error))
    if as_json:
        printed = {"assets": [row_json(row) for row in rows], "refused": refusals}
        print_json(json.dumps({**printed, **({"others": others} if others else {})}))
    else:
        if rows:
            out.print(rows_view("", tuple(rows), now))
        elif choose is not None and not refusals:
            out.print("No such asset.")
        for other in others:
            out.print(shown(other))
        for refusal in refusals:
            err.print(shown(refusal, "red"))
    sys.exit(ExitCode.NOT_SAVED if refusals else ExitCode.OK)
