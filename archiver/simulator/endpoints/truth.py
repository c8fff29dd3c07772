"""List what a perfect archive of the workspace holds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from archiver.simulator.recordings.assets import Asset, storage_path
from archiver.simulator.recordings.content import Content, Digests, digests
from archiver.simulator.workspace import Workspace


def truth_of(workspace: Workspace, asset: Asset, *, checksums: bool) -> dict[str, Any]:
    """Describe an asset. `objects`: by path below the folder of the playlist, inside the zip, or the file's name.
    Without `checksums`, sha256 and crc32c are null; with them, every byte is read (see `content.digests`)."""
    objects = [_object(path, content, checksums=checksums) for path, content in asset.whole.items()]
    thumbnails = [
        {
            **_object(thumbnail.name, asset.objects[thumbnail.name], checksums=checksums),
            "path": storage_path(asset.bucket, f"{asset.folder}/{thumbnail.name}"),
            # whether the asset's own URL covers it, or only the webhook's
            "covered_by_url": f"{asset.folder}/{thumbnail.name}".startswith(asset.main_folder),
        }
        for thumbnail in asset.thumbnails
    ]
    packed = asset.objects[asset.main] if asset.form == "zip" and asset.main else None
    return {
        "id": asset.id,
        "kind": asset.kind,
        "type": asset.row["type"],
        "status": asset.row["status"],
        "row": dict(asset.row),
        "form": asset.form.value,
        "delivery": asset.delivery.value,
        "expected_state": asset.expected_state,
        "files_deleted": workspace.catalogue.expired(asset),
        "expires_seconds": workspace.catalogue.expires_seconds(asset),
        "main": asset.main,
        "objects": objects,
        "thumbnails": thumbnails,
        "zip": None
        if packed is None or asset.main is None
        else _object(asset.main, packed, checksums=checksums),
    }


def _object(path: str, content: Content, *, checksums: bool) -> dict[str, Any]:
    known = _digests(content) if checksums else None
    return {
        "path": path,
        "size": content.size_bytes,
        "sha256": known.sha256 if known else None,
        "crc32c": known.crc32c if known else None,
    }


@lru_cache(maxsize=20_000)
def _digests(content: Content) -> Digests:
    return digests(content)
