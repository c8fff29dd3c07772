"""Count the manifests of archived assets at a destination: evidence of which one it is when it has no marker."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from archiver.core.destinations.identity import Manifests
from archiver.core.records import keys
from archiver.ledger.base import Assets
from archiver.ledger.models import AssetState, Row
from storage_backends.base import StorageBackend

SAMPLE = 20  # of the archived assets, looked for one by one
LISTED = 100  # of the manifests that are there, looked up in the ledger

_STORED = (AssetState.ARCHIVED, AssetState.QUARANTINED, AssetState.DAMAGED)


def count_manifests(store: StorageBackend, ledger: Assets) -> Manifests:
    """Compare samples of both: the archived assets of the ledger, and the manifests at `store`.

    Raises StorageError, LedgerError.
    """
    found = 0
    for sample in (
        list(islice(stored_rows(ledger), SAMPLE)),
        _sampled(ledger),
    ):  # the latter reads the whole ledger
        found = sum(store.stat(keys.manifest_key(row.asset_id, row.created_at)) is not None for row in sample)
        if sample and 2 * found >= len(sample):
            return Manifests.MOST
    listed = [info.key for info in islice(store.list(keys.MANIFESTS), LISTED)]
    if found or any(_is_stored(ledger, key) for key in listed):
        return Manifests.SOME
    return Manifests.FOREIGN if listed else Manifests.NONE


def _sampled(ledger: Assets) -> list[Row]:
    """Return SAMPLE stored assets of all ages: a bucket loses its oldest first."""
    sample: list[Row] = []
    draw = random.Random(1)  # noqa: S311 - the same assets each time
    for number, row in enumerate(stored_rows(ledger)):
        if number < SAMPLE:
            sample.append(row)
        elif (place := draw.randrange(number + 1)) < SAMPLE:
            sample[place] = row
    return sample


def stored_rows(ledger: Assets) -> Iterator[Row]:
    """The assets of which something is stored: not those that an earlier version quarantined without."""
    return (row for row in ledger.rows(_STORED) if row.state is AssetState.ARCHIVED or row.stored_objects > 0)


def _is_stored(ledger: Assets, key: str) -> bool:
    asset_id = keys.asset_id_of(key)
    row = ledger.get(asset_id) if asset_id else None
    return row is not None and row.state in _STORED
