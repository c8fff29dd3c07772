"""What a tired engineer gets to read when something is wrong: the thing by name and what to do, an exit code, no
traceback; and a good run afterwards archives everything."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import GcsServer, S3Server, free_port
from tests.simulator.process import Simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import check_against_truth
from tests.walkthrough.user import TRACEBACK, Said, User, user_of

NOT_SAVED, WRONG_SETTINGS, NOT_SERVED = 1, 2, 3  # worker/cli/shared.py


def check(result: Said, exit_code: int, *words: str) -> None:
    assert result.exit_code == exit_code, result.stderr
    assert TRACEBACK not in result.stdout + result.stderr
    for word in words:
        assert word in result.text, f"{word!r} is not in: {result.text}"


def check_good_run(user: User, simulator: Simulator) -> None:
    """After the mistake is fixed, everything is archived at once."""
    result = user.types("run", "--once", "--json", "--wait", "0")
    assert result.json["states"] == {"archived": 2}, result.stderr
    assert result.exit_code == 0
    check_against_truth(FileSideDoor(user.folder / "archive"), simulator)


@pytest.fixture
def minimal(empty_simulator: Simulator) -> Simulator:
    empty_simulator.add_asset("composite")
    empty_simulator.add_asset("chat")
    return empty_simulator


@pytest.fixture
def user(tmp_path: Path, minimal: Simulator, redis_url: str) -> User:
    return user_of(tmp_path, minimal, redis_url)


def test_a_wrong_key_is_named_with_the_settings_to_compare(user: User, minimal: Simulator) -> None:
    result = user.runs_once(HMS_SECRET="an-app-secret-of-somebody-else-altogether")

    check(result, NOT_SERVED, "401", "100ms refuses", "HMS_ACCESS_KEY", "HMS_SECRET", "dashboard")
    assert "reach" not in result.text
    assert "somebody-else" not in result.text
    check_good_run(user, minimal)


def test_an_api_that_cannot_be_reached_is_named(user: User, minimal: Simulator) -> None:
    port = free_port()

    result = user.runs_once(HMS_API_URL=f"http://127.0.0.1:{port}/v2")

    check(result, NOT_SERVED, f"cannot connect to 127.0.0.1:{port}", "HMS_API_URL")
    check_good_run(user, minimal)


def test_a_bucket_that_does_not_exist_is_named_and_holds_up_only_itself(
    user: User, minimal: Simulator, ministack_server: S3Server
) -> None:
    user.environment |= ministack_server.env
    url = ministack_server.url("no-such-bucket-of-ours", "x")

    result = user.types("run", "--once", "--wait", "0", ARCHIVER_DESTINATIONS=f"{url},./archive")

    check(
        result,
        NOT_SERVED,
        "Circuit breaker open until",
        "no-such-bucket-of-ours",
        "0 of 2 known assets are archived",
    )
    check_against_truth(FileSideDoor(user.folder / "archive"), minimal)
    check_good_run(user, minimal)


def test_refused_cloud_credentials_are_named_without_showing_them(
    user: User, minimal: Simulator, rclone_server: S3Server
) -> None:
    user.environment |= rclone_server.env
    url = rclone_server.url(rclone_server.new_bucket(), "x")

    result = user.types(
        *("run", "--once", "--wait", "0"),
        ARCHIVER_DESTINATIONS=url,
        AWS_SECRET_ACCESS_KEY="a-wrong-key-nobody-may-see",
    )

    check(result, NOT_SERVED, "Circuit breaker open until", "refuse")
    assert "nobody-may-see" not in result.text
    check_good_run(user, minimal)


def test_missing_cloud_credentials_are_named_with_where_they_are_looked_for(
    user: User, minimal: Simulator, ministack_server: S3Server
) -> None:
    user.environment |= ministack_server.env
    del user.environment["AWS_ACCESS_KEY_ID"], user.environment["AWS_SECRET_ACCESS_KEY"]
    url = ministack_server.url(ministack_server.new_bucket(), "x")

    result = user.types("run", "--once", "--wait", "0", ARCHIVER_DESTINATIONS=url)

    check(result, WRONG_SETTINGS, "Circuit breaker open until", "AWS_ACCESS_KEY_ID")
    check_good_run(user, minimal)


def test_a_bucket_of_gcs_that_does_not_exist_is_named(
    user: User, minimal: Simulator, gcs_server: GcsServer
) -> None:
    user.environment |= gcs_server.env

    result = user.types("run", "--once", "--wait", "0", ARCHIVER_DESTINATIONS="gs://not-ours-at-all/x")

    check(result, NOT_SERVED, "Circuit breaker open until", "not-ours-at-all")
    check_good_run(user, minimal)


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_named_and_what_has_room_is_archived_when_there_is_some(
    user: User, minimal: Simulator
) -> None:
    with small_disk(user.folder, 32 * 1024) as disk:
        result = user.types("run", "--once", "--wait", "0", ARCHIVER_DESTINATIONS=str(disk / "archive"))

        check(result, NOT_SERVED, "Circuit breaker open until", "No space left")
    check_good_run(user, minimal)


def test_a_file_where_the_directory_should_be_is_named(user: User, minimal: Simulator) -> None:
    (user.folder / "notes.txt").write_text("mine")

    result = user.types("run", "--once", "--wait", "0", ARCHIVER_DESTINATIONS="./notes.txt")

    check(result, NOT_SERVED, "notes.txt is not a directory")
    assert (user.folder / "notes.txt").read_text() == "mine"
    check_good_run(user, minimal)


def test_a_directory_that_cannot_be_written_is_named(user: User, minimal: Simulator) -> None:
    result = user.types("run", "--once", "--wait", "0", ARCHIVER_DESTINATIONS="/proc/archive")

    check(result, NOT_SERVED, "Circuit breaker open until", "/proc")
    check_good_run(user, minimal)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("ARCHIVER_DESTINATIONS", "s4://bucket/x", ["unknown scheme 's4'", "s3://"]),
        ("ARCHIVER_DESTINATIONS", "s3://b/x?endpont_url=http://a", ["endpont_url", "endpoint_url"]),
        ("ARCHIVER_DESTINATIONS", "s3://key:sesame-sesame@bucket/x", ["ARCHIVER_DESTINATIONS", "AWS_"]),
        ("ARCHIVER_DESTINATON", "./archive", ["did you mean ARCHIVER_DESTINATIONS?"]),
        ("ARCHIVER_SWEEP_SECONDS", "often", ["ARCHIVER_SWEEP_SECONDS", "integer"]),
        ("ARCHIVER_REDIS_URL", "http://:sesame-sesame@host", ["ARCHIVER_REDIS_URL", "redis://"]),
        ("ARCHIVER_KEY_TEMPLATE", "{room_id}", ["ARCHIVER_KEY_TEMPLATE", "asset_id"]),
        ("HMS_SECRET", "", ["HMS_SECRET", "HMS_ACCESS_KEY"]),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_would_be_right(
    user: User, setting: str, value: str, words: list[str]
) -> None:
    user.environment[setting] = value

    result = user.runs_once()

    check(result, WRONG_SETTINGS, *words)
    assert "sesame-sesame" not in result.text
    assert result.stdout == ""


@pytest.mark.parametrize("state_dir", ["./notes.txt", "/proc/nowhere"])
def test_a_state_directory_that_cannot_be_used_is_named(user: User, state_dir: str) -> None:
    (user.folder / "notes.txt").write_text("mine")

    for command in (["run", "--once"], ["status"], ["up"]):
        result = user.types(*command, ARCHIVER_STATE_DIR=state_dir, ARCHIVER_REDIS_URL=None)

        check(result, WRONG_SETTINGS, "ARCHIVER_STATE_DIR", "ARCHIVER_REDIS_URL")


def test_a_broker_that_is_down_is_named_without_its_password(user: User, minimal: Simulator) -> None:
    port = free_port()
    url = f"redis://:sesame-sesame@127.0.0.1:{port}/0"

    for command in (["run", "--once"], ["status"], ["sweep"], ["show", "x"], ["archive", "x"]):
        result = user.types(*command, ARCHIVER_REDIS_URL=url)

        check(result, NOT_SERVED, f"127.0.0.1:{port}", "ARCHIVER_REDIS_URL")
        assert "sesame" not in result.text
    check_good_run(user, minimal)


def test_one_hostile_asset_is_refused_by_name_and_the_others_carry_on(user: User, minimal: Simulator) -> None:
    for kind in ("hostile-playlist", "hostile-zip-slip", "hostile-zip-bomb", "hostile-redirect"):
        minimal.add_asset(kind)
    minimal.add_asset("hostile-id")
    minimal.add_asset("hostile-html")

    result = user.runs_once("--wait", "5")

    check(result, NOT_SAVED)
    archived = result.json["states"].pop("archived")
    assert archived >= 2
    written = FileSideDoor(user.folder / "archive").stored_keys()
    ours = ("recordings/", "manifests/", "ends/", "sessions/", ".archiver-destination.json")
    assert all(key.startswith(ours) for key in written)
    outside = {path.name for path in user.folder.iterdir()} - {"archive", ".archiver"}
    assert outside == set()
    shown = user.types("status").text
    assert "Need a person" in shown or "waiting" in shown
