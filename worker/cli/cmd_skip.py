"""`archiver skip`."""

from __future__ import annotations

from worker.cli.deciding import decide
from worker.cli.shared import AssetIds, By, Json, Why


def skip(asset_ids: AssetIds, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """Do not archive these assets. No sweep brings them back; `archiver retry ID` does.

    They are `rejected`, with the reason, and no longer reported. What is stored of them stays. Idempotent. Exit code 1
    when an asset is archived already, or a worker is copying it.

    Examples:
      archiver skip 6400c0d3e1b2a3c4d5e6f708 --why 'a test call'
    """
    from archiver.core.upkeep import review

    decide(review.skip, asset_ids, why=why, by=by, as_json=as_json)
