"""Options of a destination, as a user writes them: into Glacier, with locks and metadata; and a misspelt one."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.servers import S3Server
from tests.simulator.process import Simulator
from tests.walkthrough.user import User, user_of

WRONG_SETTINGS = 2


@pytest.fixture
def user(tmp_path: Path, empty_simulator: Simulator, redis_url: str, moto_server: S3Server) -> User:
    empty_simulator.add_asset("composite")
    empty_simulator.add_asset("chat")
    return user_of(tmp_path, empty_simulator, redis_url, **moto_server.env)


def test_recordings_go_to_glacier_locked_and_described_and_records_stay_readable(
    user: User, moto_server: S3Server, tmp_path: Path
) -> None:
    with contextlib.closing(moto_server.client()) as client:
        bucket = f"{moto_server.new_bucket()}-locks"
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        file = tmp_path / "destinations.toml"
        file.write_text(
            f"""
            [[destination]]
            url = "s3://{bucket}/pre"
            endpoint_url = "{moto_server.endpoint_url}"
            storage_class = "DEEP_ARCHIVE"
            lock_mode = "GOVERNANCE"
            lock_days = 30
            metadata = ["room", "type", "team=video"]
            """
        )
        user.environment["ARCHIVER_DESTINATIONS_FILE"] = str(file)

        archived = user.types("run", "--once", "--json", "--wait", "0")
        listed = client.list_objects_v2(Bucket=bucket)["Contents"]
        asset_id = next(Path(entry["Key"]).stem for entry in listed if "/manifests/" in entry["Key"])
        verified, named = user.types("verify"), user.types("verify", asset_id)

        assert archived.json["states"] == {"archived": 2}, archived.stderr
        assert (verified.exit_code, named.exit_code) == (0, 0), verified.text + named.text
        assert "2 of them are in a cold storage class" in verified.text
        assert "cold, not read since it was stored" in named.text
        heads = {entry["Key"]: client.head_object(Bucket=bucket, Key=entry["Key"]) for entry in listed}
        media = {key: head for key, head in heads.items() if key.startswith("pre/recordings/")}
        records = {key: head for key, head in heads.items() if key not in media}
        assert media
        assert {head.get("StorageClass") for head in media.values()} == {"DEEP_ARCHIVE"}
        assert {head.get("StorageClass", "STANDARD") for head in records.values()} == {"STANDARD"}
        locked = {key for key, head in heads.items() if dict(head).get("ObjectLockMode")}
        assert locked == {*media, *(key for key in records if key.startswith("pre/manifests/"))}
        assert all({"room", "type", "team"} <= head["Metadata"].keys() for head in media.values())


@pytest.mark.parametrize("command", ["doctor", "verify", "run --once"])
def test_a_misspelt_option_ends_the_command_and_names_the_nearest(command: str, user: User) -> None:
    result = user.types(*command.split(), ARCHIVER_DESTINATIONS="s3://bucket/pre?storage_clas=GLACIER")

    assert result.exit_code == WRONG_SETTINGS, result.text
    assert "unknown option 'storage_clas'; did you mean storage_class?" in result.text
    assert "Traceback" not in result.text
