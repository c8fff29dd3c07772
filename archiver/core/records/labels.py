"""What a recording is of, for the tags and metadata of its objects (storage_backends/labels.py)."""

from __future__ import annotations

from collections.abc import Mapping

from archiver.core.records.manifest import Manifest
from archiver.hms.models import Asset


def labels_of(asset: Asset) -> Mapping[str, str]:
    labels = {"room": asset.room_id, "session": asset.session_id, "type": asset.type, "asset": asset.id}
    return {name: value for name, value in labels.items() if value}


def labels_in(manifest: Manifest) -> Mapping[str, str]:
    """Return the same, as the manifest has it from the API."""
    found = {name: manifest.asset.get(field) for name, field in _FIELDS.items()} | {
        "asset": manifest.asset_id
    }
    return {name: value for name, value in found.items() if isinstance(value, str) and value}


_FIELDS = {"room": "room_id", "session": "session_id", "type": "type"}
