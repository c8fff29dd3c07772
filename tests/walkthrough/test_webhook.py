"""Thumbnails that only a webhook can give."""

from __future__ import annotations

import json
from pathlib import Path

from tests.simulator.process import Simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import manifests
from tests.walkthrough.user import TRACEBACK, user_of


def event_for(simulator: Simulator, asset_id: str) -> str:
    """The body of the webhook that announces this asset."""
    (event,) = (
        each["event"]
        for each in simulator.webhooks()
        if any(f["asset_id"] == asset_id for f in each["event"]["data"].get("recording_single_files", []))
    )
    return json.dumps(event)


def test_thumbnails_that_the_api_does_not_sign_come_with_the_webhook(
    tmp_path: Path, empty_simulator: Simulator, redis_url: str
) -> None:
    user = user_of(tmp_path, empty_simulator, redis_url)
    asset = empty_simulator.add_asset("vod-fmp4")
    uncovered = {t["path"].rsplit("/", 1)[-1] for t in asset["thumbnails"] if not t["covered_by_url"]}
    assert uncovered, "this asset has thumbnails that its own URL does not open"

    kept = user.types("webhook", "-", stdin=event_for(empty_simulator, asset["id"]))
    result = user.runs_once()

    assert kept.exit_code == 0, kept.stderr
    assert "kept for 1 asset" in kept.text
    assert "X-Amz" not in kept.text
    assert "Signature" not in kept.text
    assert result.json["states"] == {"archived": 1}
    manifest = manifests(FileSideDoor(user.folder / "archive"))[asset["id"]]
    paths = {item["path"].rsplit("/", 1)[-1] for item in manifest["objects"]}
    assert uncovered <= paths, manifest["warnings"]


def test_without_the_webhook_the_status_says_which_thumbnails_could_not_be_had(
    tmp_path: Path, empty_simulator: Simulator, redis_url: str
) -> None:
    user = user_of(tmp_path, empty_simulator, redis_url)
    asset = empty_simulator.add_asset("vod-fmp4")

    result = user.runs_once()

    assert result.json["states"] == {"archived": 1}
    status = user.types("status", "--json")
    (row,) = status.json["with_warnings"]
    assert row["asset_id"] == asset["id"]
    assert "thumbnail" in " ".join(row["warnings"])
    assert "Archived, with warnings" in user.types("status").text


def test_a_webhook_may_come_twice_and_from_a_file(
    tmp_path: Path, empty_simulator: Simulator, redis_url: str
) -> None:
    user = user_of(tmp_path, empty_simulator, redis_url)
    asset = empty_simulator.add_asset("vod-fmp4")
    (user.folder / "event.json").write_text(event_for(empty_simulator, asset["id"]))

    first = user.types("webhook", "event.json", "--json")
    second = user.types("webhook", "event.json", "--json")

    assert first.json == second.json
    assert first.json["assets"] == 1
    assert first.json["thumbnails"] == len(asset["thumbnails"])


def test_what_is_no_event_is_refused_and_an_event_without_thumbnails_says_so(
    tmp_path: Path, empty_simulator: Simulator, redis_url: str
) -> None:
    user = user_of(tmp_path, empty_simulator, redis_url)

    invalid = user.types("webhook", "-", stdin="<html>")
    other = user.types("webhook", "-", stdin='{"type": "peer.join.success", "data": {}}')
    absent = user.types("webhook", "nowhere.json")

    assert (invalid.exit_code, other.exit_code, absent.exit_code) == (2, 1, 2)
    assert "no JSON object" in invalid.text
    assert "peer.join.success" in other.text
    assert TRACEBACK not in invalid.stderr + other.stderr + absent.stderr
