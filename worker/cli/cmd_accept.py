"""`archiver accept`."""

from __future__ import annotations

from worker.cli.deciding import decide
from worker.cli.shared import AssetIds, By, Json, Why


def accept(asset_ids: AssetIds, why: Why = "", by: By = "", as_json: Json = False) -> None:
    """Declare quarantined assets archived: somebody has checked that what is stored is all there is.

    `archiver show ID` lists the doubts. The manifest records them, with who accepted them, when and why. Idempotent.
    Exit code 1 when an asset is not stored whole at every destination.

    Examples:
      archiver accept 6400c0d3e1b2a3c4d5e6f708 --why 'the meeting was recorded without sound'
    """
    from archiver.core.upkeep import review

    decide(review.accept, asset_ids, why=why, by=by, as_json=as_json)
