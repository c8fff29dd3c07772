"""`archiver sweep`."""

from __future__ import annotations

import json

from worker.cli.opening import open_services
from worker.cli.shared import Json, err, out, print_json, read_settings, require_credentials


def sweep(as_json: Json = False) -> None:
    """List every asset of the API once and enter what is new in the ledger. Copies nothing. Idempotent.

    Examples:
      archiver sweep
    """
    with open_services(require_credentials(read_settings())) as services:
        result = services.sweeper.sweep(full=True)
    if result is None:
        err.print("Another sweep is already running. Nothing was done.")
    elif as_json:
        print_json(json.dumps({name: getattr(result, name) for name in result.__slots__}))
    else:
        out.print(
            f"{result.assets} assets on {result.pages} pages, {result.new} new, in {result.seconds:.1f} s."
        )
