"""`archiver run --once` typed by its user: every kind of destination, once, again, and after the ledger was lost."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from tests.servers import AzuriteServer, GcsServer, S3Server
from tests.simulator.process import Simulator
from tests.storage_backends.side_doors import AzureSideDoor, FileSideDoor, GcsSideDoor, S3SideDoor
from tests.walkthrough.stored import check_against_truth, manifests
from tests.walkthrough.user import User, user_of

ALL_STATES = {"archived": 20, "external": 1, "source_failed": 1}  # of the set `demo`


def test_everything_is_archived_byte_for_byte_in_a_directory_with_nothing_configured_but_the_account(
    tmp_path: Path, simulator: Simulator
) -> None:
    user = user_of(tmp_path, simulator, redis_url=None)

    result = user.runs_once()

    assert result.json["states"] == ALL_STATES, result.stderr
    assert result.json["seen"] == 22
    assert result.exit_code == 1, "one failed at 100ms, and is not saved"
    check_against_truth(FileSideDoor(tmp_path / "archive"), simulator)

    simulator.clear_requests()
    again = user.runs_once()

    assert again.json == {"seen": 22, "states": ALL_STATES, "bytes": 0}
    assert simulator.requests(on="storage") + simulator.requests(on="cdn") == []

    shutil.rmtree(tmp_path / ".archiver")
    again = user.runs_once()

    assert again.json == {"seen": 22, "states": ALL_STATES, "bytes": 0}
    assert simulator.requests(on="storage") + simulator.requests(on="cdn") == []
    assert user.types("verify").exit_code == 0


@pytest.mark.parametrize("kind", ["ministack", "moto", "rclone"])
def test_everything_is_archived_byte_for_byte_in_a_bucket_of_s3_and_its_compatibles(
    kind: str, user: User, simulator: Simulator, request: pytest.FixtureRequest
) -> None:
    server: S3Server = request.getfixturevalue(f"{kind}_server")
    bucket = server.new_bucket()
    user.environment |= {**server.env, "ARCHIVER_DESTINATIONS": server.url(bucket, "recordings/of/mine")}

    result = user.runs_once()

    assert result.json["states"] == ALL_STATES, result.stderr
    with closing(server.client()) as client:
        door = S3SideDoor(client, bucket, "recordings/of/mine/")
        check_against_truth(door, simulator)
        if kind != "rclone":  # which does not list them
            uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
            assert uploads == [], "nothing half-done is left to be billed"
    _nothing_is_copied_again_even_when_the_ledger_is_lost(user, simulator)


def test_everything_is_archived_byte_for_byte_in_a_bucket_of_gcs(
    user: User, simulator: Simulator, gcs_server: GcsServer
) -> None:
    bucket = gcs_server.new_bucket()
    user.environment |= {**gcs_server.env, "ARCHIVER_DESTINATIONS": gcs_server.url(bucket, "mine")}

    result = user.runs_once()

    assert result.json["states"] == ALL_STATES, result.stderr
    check_against_truth(GcsSideDoor(gcs_server.endpoint_url, bucket, "mine/"), simulator)
    _nothing_is_copied_again_even_when_the_ledger_is_lost(user, simulator)


def test_everything_is_archived_byte_for_byte_in_a_container_of_azure(
    user: User, simulator: Simulator, azurite_server: AzuriteServer
) -> None:
    container = azurite_server.new_bucket()
    user.environment |= {
        **azurite_server.env,
        "ARCHIVER_DESTINATIONS": azurite_server.url(container, "mine", storage_class="cool"),
    }

    result = user.runs_once()

    assert result.json["states"] == ALL_STATES, result.stderr
    with azurite_server.client() as client:
        files = client.get_container_client(container)
        check_against_truth(AzureSideDoor(files, "mine/"), simulator)
        tiers = {(blob.name.split("/")[1], blob.blob_tier) for blob in files.list_blobs()}
    assert {tier for folder, tier in tiers if folder == "recordings"} == {"Cool"}
    assert {tier for folder, tier in tiers if folder in ("manifests", "ends")} == {"Hot"}
    _nothing_is_copied_again_even_when_the_ledger_is_lost(user, simulator)


def test_two_destinations_are_filled_from_one_reading_of_the_source(
    user: User, simulator: Simulator, ministack_server: S3Server
) -> None:
    bucket = ministack_server.new_bucket()
    user.environment |= {
        **ministack_server.env,
        "ARCHIVER_DESTINATIONS": f"./archive,{ministack_server.url(bucket, 'b')}",
    }

    result = user.runs_once()

    assert result.json["states"] == ALL_STATES, result.stderr
    with closing(ministack_server.client()) as client:
        doors = FileSideDoor(user.folder / "archive"), S3SideDoor(client, bucket, "b/")
        for door in doors:
            check_against_truth(door, simulator)
        assert set(manifests(doors[0])) == set(manifests(doors[1]))
    totals = simulator.totals()
    sent = sum(totals.get(on, {"bytes": 0})["bytes"] for on in ("storage", "cdn"))
    # once for both, and the last object of each connection again to confirm the others: much in trees as small as these
    assert sent < 1.7 * result.json["bytes"]


def test_a_destination_that_was_emptied_is_left_alone_until_a_person_adopts_it(
    user: User, simulator: Simulator
) -> None:
    user.environment["ARCHIVER_DESTINATIONS"] = "./one,./two"
    user.runs_once()
    shutil.rmtree(user.folder / "one")
    before = _files(user.folder / "two")

    result = user.runs_once()
    assert result.exit_code != 0
    assert result.json["states"] == ALL_STATES, "nothing is concluded from an empty directory"
    assert _files(user.folder / "one") == {}
    looked = user.types("doctor", "--json")
    assert any("archiver adopt" in finding["remedy"] for finding in looked.json)
    assert user.types("status").exit_code == 1
    verified = user.types("verify", "--quick")
    assert verified.exit_code == 1
    assert "is not the destination that the ledger knows" in verified.text

    assert user.types("adopt", "./one").exit_code == 0
    result = user.runs_once()

    assert result.json["states"] == ALL_STATES, result.stderr
    check_against_truth(FileSideDoor(user.folder / "one"), simulator)
    assert _files(user.folder / "two") == before
    compared = user.types("reconcile", "--json")
    assert (compared.exit_code, compared.json["stopped"], compared.json["reopened"]) == (0, False, 0)


def test_a_destination_added_later_gets_everything_and_the_first_one_is_left_alone(
    user: User, simulator: Simulator
) -> None:
    user.runs_once(ARCHIVER_DESTINATIONS="./one")
    with Redis.from_url(user.environment["ARCHIVER_REDIS_URL"]) as redis:
        redis.flushall()
    before = _files(user.folder / "one")

    result = user.runs_once(ARCHIVER_DESTINATIONS="./one,./two")

    assert result.json["states"] == ALL_STATES, result.stderr
    check_against_truth(FileSideDoor(user.folder / "two"), simulator)
    assert _files(user.folder / "one") == before


def _files(folder: Path) -> dict[Path, int]:
    """Return when each file was written, but for the records of other ends, which say when they were written last."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "ends" not in path.parts
    }


def _nothing_is_copied_again_even_when_the_ledger_is_lost(user: User, simulator: Simulator) -> None:
    simulator.clear_requests()
    assert user.runs_once().json == {"seen": 22, "states": ALL_STATES, "bytes": 0}

    with Redis.from_url(user.environment["ARCHIVER_REDIS_URL"]) as redis:
        redis.flushall()
    assert user.runs_once().json == {"seen": 22, "states": ALL_STATES, "bytes": 0}

    assert simulator.requests(on="storage") + simulator.requests(on="cdn") == []
