"""`archiver reject`."""

from __future__ import annotations

from worker.cli.deciding import decide
from worker.cli.shared import AssetIds, By, Json, Why


def reject(asset_ids: AssetIds, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """Declare assets worthless: they are not retried and no longer reported.

    For assets that are quarantined, waiting, damaged or lost. What is stored of them stays. `archiver archive ID`
    undoes it while 100ms still has the asset. Idempotent. Exit code 1 when an asset is archived.

    Examples:
      archiver reject 6400c0d3e1b2a3c4d5e6f708 --why 'an empty test recording'
    """
    from archiver.core.upkeep import review

    decide(review.reject, asset_ids, why=why, by=by, as_json=as_json)
