"""What lies at a destination, seen without our code, against what the simulator says a perfect archive holds."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Protocol

from tests.manifest_schema import assert_valid
from tests.simulator.process import Simulator


class SideDoor(Protocol):
    def stored_keys(self) -> set[str]: ...

    def read(self, key: str) -> bytes: ...


def manifests(door: SideDoor) -> dict[str, dict[str, Any]]:
    """By asset id."""
    found = [json.loads(door.read(key)) for key in door.stored_keys() if key.startswith("manifests/")]
    for manifest in found:
        assert_valid(manifest)
    return {manifest["asset_id"]: manifest for manifest in found}


def check_against_truth(door: SideDoor, simulator: Simulator) -> None:
    """Every asset that should be archived has a manifest and every object of the truth: byte-identical, unless the
    manifest says that it was rewritten; nothing that should not be archived has one; and no key lies around that no
    manifest names, but the marker of the destination."""
    written = manifests(door)
    truth = {asset["id"]: asset for asset in simulator.truth()}
    assert set(written) == {i for i, asset in truth.items() if asset["expected_state"] == "archived"}
    named = {key for key in door.stored_keys() if key.startswith(("manifests/", "ends/"))}
    for asset_id, manifest in written.items():
        check_asset(door, truth[asset_id], manifest)
        named |= {f"{manifest['folder']}/{item['path']}" for item in manifest["objects"]}
    named |= {
        key for key in door.stored_keys() if key.startswith("sessions/") and key.endswith("/session.json")
    }
    assert door.stored_keys() == named | {".archiver-destination.json"}


def check_asset(door: SideDoor, truth: dict[str, Any], manifest: dict[str, Any] | None = None) -> None:
    """One asset, as above."""
    manifest = manifest or manifests(door)[truth["id"]]
    objects = {item["path"]: item for item in manifest["objects"]}
    for expected in truth["objects"]:
        assert expected["path"] in objects, (truth["id"], expected["path"])
        _check_object(door, manifest, objects[expected["path"]], expected)
    assert "asset.json" not in objects, "its description is in the manifest"
    assert manifest["total_size"] == sum(len(door.read(f"{manifest['folder']}/{p}")) for p in objects)


def _check_object(
    door: SideDoor, manifest: dict[str, Any], item: dict[str, Any], expected: dict[str, Any]
) -> None:
    data = door.read(f"{manifest['folder']}/{item['path']}")
    assert len(data) == item["size"]
    if item.get("rewritten"):
        return
    assert hashlib.sha256(data).hexdigest() == expected["sha256"], (manifest["asset_id"], item["path"])
    assert int(item["crc32c"], 16) == _number(expected["crc32c"])


def _number(crc32c: int | str) -> int:
    return crc32c if isinstance(crc32c, int) else int(crc32c, 16)
