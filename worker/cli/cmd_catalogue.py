"""`archiver catalogue`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from storage_backends.errors import StorageError
from worker.cli.opening import open_services
from worker.cli.progress import progress_shown
from worker.cli.shared import ExitCode, Json, err, out, print_json, read_settings


def catalogue(
    month: Annotated[
        str,
        typer.Option(
            "--month", metavar="YYYY-MM", help="This month alone; `undated` for assets without a date."
        ),
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Every month that has a manifest.")] = False,
    as_json: Json = False,
) -> None:
    """Write a table of what each destination holds, by the month its assets were created: catalogue/YYYY-MM.csv.gz.

    Made from the manifests there, a row for each. Without --month, last month and this one: enough for each night.
    Idempotent. Exit code 3 when a destination could not be read or written; the others are done all the same.

    Examples:
      archiver catalogue
      archiver catalogue --month 2026-03
    """
    from archiver.core.upkeep.catalogue import is_month, months_of, recent_months, write_catalogue
    from worker.views.text import shown, size

    if month and (every or not is_month(month)):
        raise typer.BadParameter(
            "write a month as 2026-03, or `undated`; not with --all", param_hint="--month"
        )
    failed = False
    with open_services(read_settings()) as services, progress_shown(quiet=as_json) as progress:
        now = services.ledger.now()
        for store in services.destinations:
            try:
                months = months_of(store) if every else [month] if month else recent_months(now)
                for each in months:
                    made = write_catalogue(store, each, progress)
                    if as_json:
                        fields = {name: getattr(made, name) for name in made.__slots__}
                        print_json(json.dumps({"destination": store.name, "month": each, **fields}))
                    else:
                        what = "written" if made.written else "as it was" if made.rows else "no manifest"
                        out.print(
                            shown(
                                f"{store.name}/{made.key}: {made.rows:,} rows, {size(made.size_bytes)}, {what}"
                            )
                        )
            except StorageError as error:
                failed = True
                err.print(shown(f"{store.name}: {error}", "red"))
    sys.exit(ExitCode.UNREACHABLE if failed else ExitCode.OK)
