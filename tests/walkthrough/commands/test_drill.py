"""`archiver drill`."""

from __future__ import annotations

import json
from pathlib import Path

import imageio_ffmpeg

from tests.simulator.process import Simulator
from tests.walkthrough.user import User


def test_without_an_archived_copy_there_is_nothing_to_drill(user: User) -> None:
    result = user.types("drill")

    assert result.exit_code == 0, result.stderr
    assert "There is nothing to drill yet: no copy is archived." in result.text


def test_a_drill_is_in_status_and_finds_what_does_not_play(
    user: User, empty_simulator: Simulator, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    for kind in ("vod-fmp4", "composite", "chat"):
        empty_simulator.add_asset(kind)
    user.runs_once()
    path = f"{tools}:{user.full_environment['PATH']}"

    undecoded = user.types("drill", "--assets", "3", "--json", PATH="/usr/bin:/bin")
    decoded = user.types("drill", "--assets", "3", PATH=path)
    status = user.types("status", "--json")

    assert (undecoded.exit_code, decoded.exit_code) == (0, 0), undecoded.stderr + decoded.stderr
    report = undecoded.json
    assert (report["copies"], report["decoded"] + report["not_decoded"]) == (3, 2)
    assert "3 copies restored" in decoded.text
    assert "2 decoded" in decoded.text
    assert any("3 copies restored and compared" in note for note in status.json["notes"])
    assert not (user.folder / ".archiver/archiver-drill").exists()
    assert len(list((user.folder / "archive/drills").rglob("*.jsonl.gz"))) == 2

    for manifest in (user.folder / "archive/manifests").rglob("*.json"):
        found = json.loads(manifest.read_text())
        if found["asset"]["type"] == "room-composite":
            (user.folder / "archive" / found["folder"] / found["objects"][0]["path"]).write_bytes(b"rot")
    failed = user.types("drill", PATH=path)

    assert failed.exit_code == 1
    assert "has 3 bytes, the manifest says" in failed.text
    assert "drill_failed" in {each["code"] for each in user.types("status", "--json").json["problems"]}
