"""`archiver plan`."""

from __future__ import annotations

import json

from worker.cli.opening import open_services
from worker.cli.shared import Json, out, print_json, read_settings, require_credentials


def plan(as_json: Json = False) -> None:
    """Say what a sweep would archive: assets, bytes, time, requests and cost. Writes nothing.

    Reads the whole list of 100ms. The time comes from the rate of the last two weeks; requests and cost from the
    formula in docs/costs.md, with example prices. HLS trees are guessed from their size.

    Examples:
      archiver plan
      ARCHIVER_TYPES=room-composite archiver plan   with another filter
    """
    from archiver.core.upkeep.planning import make_plan
    from archiver.ledger.clock import LedgerClock
    from storage_backends.destination_url import parse_destination
    from worker.bootstrap import build_scope
    from worker.views.plan import plan_json, plan_view

    settings = require_credentials(read_settings())
    with open_services(settings) as services:
        found = make_plan(
            api=services.api,
            ledger=services.ledger,
            stores=services.stores,
            scope=build_scope(settings),
            clock=LedgerClock(services.ledger),
            part_bytes=settings.part_bytes,
        )
    buckets = sum(parse_destination(url).scheme in ("s3", "gs", "az") for url in settings.destinations)
    if as_json:
        print_json(json.dumps(plan_json(found, buckets=buckets)))
    else:
        out.print("Nothing was written.", style="dim")
        out.print(plan_view(found, buckets=buckets))
