"""`archiver restore`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import bagit
import imageio_ffmpeg
import pytest
from typer.testing import CliRunner

from tests.servers import S3Server
from tests.simulator.process import Simulator
from tests.walkthrough.user import TRACEBACK, User
from worker.cli import app

ROOM = "17edc53f88a75aa53ae65811"
NO_ACCOUNT: dict[str, Any] = {
    "HMS_ACCESS_KEY": None,
    "HMS_SECRET": None,
    "HMS_API_URL": "http://127.0.0.1:1/v2",
    "ARCHIVER_REDIS_URL": None,
}


def frames(path: str | Path, *options: str) -> int:
    """The number of video frames; fails on any error of the decoder."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", *options, "-i", str(path)]
    command += ["-map", "0:v:0", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return sum(not line.startswith("#") for line in done.stdout.splitlines())


def manifests(user: User, of_type: str = "") -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (user.folder / "archive/manifests").rglob("*.json")]
    return [each for each in found if of_type in ("", each["asset"]["type"])]


@pytest.fixture
def assets(empty_simulator: Simulator) -> None:
    """A VOD and a composite of two rooms; archive them."""
    empty_simulator.add_asset("vod-fmp4", row={"room_id": ROOM})
    empty_simulator.add_asset("composite", row={"room_id": "another-room"})


@pytest.fixture
def archived_demo(user: User, assets: None) -> User:
    assert user.runs_once().exit_code == 0
    return user


def test_a_vod_plays_from_where_it_was_restored_to_without_ledger_or_account(archived_demo: User) -> None:
    user, vod = archived_demo, manifests(archived_demo, "room-vod")[0]

    first = user.types("restore", vod["asset_id"], "out", **NO_ACCOUNT)
    second = user.types("restore", vod["asset_id"], "out", "--json", **NO_ACCOUNT)

    assert first.exit_code == 0, first.stderr
    result, total = map(json.loads, second.stdout.splitlines())
    assert (result["kept"], result["read_bytes"]) == (len(vod["objects"]), 0)
    assert (total["restored"], total["failed"]) == (1, 0)
    assert result["opens"] in first.text
    assert frames(user.folder / result["opens"]) == 90
    assert not (user.folder / ".archiver").exists()


def test_a_room_becomes_a_valid_bag_and_a_flipped_byte_makes_it_invalid(archived_demo: User) -> None:
    user = archived_demo
    other = manifests(user, "room-composite")[0]

    first = user.types("restore", "--room", ROOM, "--bag", "bag", **NO_ACCOUNT)
    foreign = user.folder / "bag/data/notes.txt"
    foreign.write_text("mine")
    refused = user.types("restore", "--room", ROOM, "--bag", "bag", **NO_ACCOUNT)
    foreign.unlink()
    added = user.types("restore", other["asset_id"], "--bag", "bag", **NO_ACCOUNT)

    assert (first.exit_code, refused.exit_code, added.exit_code) == (0, 1, 0), first.stderr + added.stderr
    assert "data/notes.txt" in refused.text
    bag = bagit.Bag(str(user.folder / "bag"))
    assert bag.is_valid()
    media = [path for path in bag.payload_files() if not path.endswith("manifest.json")]
    assert len(media) == sum(len(each["objects"]) for each in manifests(user))
    largest = max((user.folder / "bag" / path for path in media), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    assert not bagit.Bag(str(user.folder / "bag")).is_valid()
    assert user.types("restore", "--all", "--bag", "bag", **NO_ACCOUNT).exit_code == 0
    assert bagit.Bag(str(user.folder / "bag")).is_valid()


def test_what_one_destination_lost_comes_from_the_other_and_history_tells_of_it(
    user: User,
    assets: None,
    rclone_server: S3Server,
) -> None:
    bucket = rclone_server.new_bucket()
    user.environment |= {
        **rclone_server.env,
        "ARCHIVER_DESTINATIONS": f"./archive,{rclone_server.url(bucket, 'x')}",
    }
    user.runs_once()
    vod = manifests(user, "room-vod")[0]
    lost = user.folder / "archive" / vod["folder"] / vod["objects"][3]["path"]
    lost.unlink()

    done = user.types("restore", vod["asset_id"], "out", "--json")
    alone = user.types("restore", vod["asset_id"], "alone", "--from", "./archive")
    far = user.types("restore", vod["asset_id"], "far", "--from", f"s3://{bucket}/x", "--json")

    assert (done.exit_code, alone.exit_code, far.exit_code) == (0, 1, 0), done.stderr
    sources = json.loads(done.stdout.splitlines()[0])["sources"]
    assert [sources[name] for name in sorted(sources)] == [len(vod["objects"]) - 1, 1]
    assert list(json.loads(far.stdout.splitlines()[0])["sources"].values()) == [len(vod["objects"])]
    assert lost.name in alone.text
    history = user.types("show", vod["asset_id"], "--json").json["history"]
    assert [each["what"] for each in history] == ["restored", "restored"]


@pytest.fixture
def cold_bucket(
    user: User,
    assets: None,
    moto_server: S3Server,
) -> Iterator[tuple[str, Any]]:
    bucket = moto_server.new_bucket()
    user.environment |= {**moto_server.env, "ARCHIVER_DESTINATIONS": moto_server.url(bucket, "x")}
    user.runs_once()
    with closing(moto_server.client()) as client:
        yield bucket, client


def test_cold_objects_are_asked_for_once_and_restored_afterwards(
    user: User, cold_bucket: tuple[str, Any]
) -> None:
    bucket, client = cold_bucket
    listed = client.list_objects_v2(Bucket=bucket, Prefix="x/recordings/")["Contents"]
    key = next(each["Key"] for each in listed if each["Key"].endswith(".mp4") and "composite" in each["Key"])
    asset_id = key.split("/")[-2]
    client.copy_object(
        Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": key}, StorageClass="DEEP_ARCHIVE"
    )

    cold = user.types("restore", asset_id, "out", **NO_ACCOUNT)
    asked = user.types("restore", asset_id, "out", "--thaw", "bulk", **NO_ACCOUNT)
    again = user.types("restore", asset_id, "out", "--thaw", "bulk", **NO_ACCOUNT)

    assert (cold.exit_code, asked.exit_code, again.exit_code) == (1, 1, 0)
    assert "--thaw bulk" in cold.text
    assert ("copy_is_cold" in cold.text, "copy_not_whole" in cold.text) == (True, False)
    assert "Asked for 1 cold object: about $0.00 at the list price" in asked.text
    assert "within 2 d: run the same command again after" in asked.text
    assert "1 asset is whole in out" in again.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("out",), "name assets before the folder"),
        (("6400c0d3e1b2a3c4d5e6f708",), "name the folder after the ids"),
        (("a", "archive/out"), "is inside the destination"),
        (("a", "/dev/null/out"), "cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_line_that_cannot_be_meant_is_2(user: User, arguments: tuple[str, ...], said: str) -> None:
    (user.folder / "archive").mkdir()

    result = user.types("restore", *arguments, **NO_ACCOUNT)

    assert result.exit_code == 2
    assert said in " ".join(result.text.replace("│", " ").split())
    assert TRACEBACK not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("a out --thaw now", "is standard or bulk"),
        ("--since yesterday out", "write a date or a time"),
        ("--since 2026-03-02 --until 2026-03-01 out", "is not before --until"),
    ],
)
def test_an_option_that_cannot_be_meant_is_2_before_anything_is_read(arguments: str, said: str) -> None:
    result = CliRunner().invoke(app, ["restore", *arguments.split()])

    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_a_destination_that_cannot_be_reached_is_3_and_an_unknown_asset_1(user: User) -> None:
    away: dict[str, Any] = {
        "ARCHIVER_DESTINATIONS": "s3://bucket?endpoint_url=http://127.0.0.1:1&region=us-east-1"
    }
    keys: dict[str, Any] = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1"}
    (user.folder / "archive").mkdir()

    assert user.types("restore", "a", "out", **NO_ACCOUNT, **away, **keys).exit_code == 3
    assert user.types("restore", "a", "out", **NO_ACCOUNT).exit_code == 1
