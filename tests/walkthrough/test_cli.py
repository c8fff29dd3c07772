"""Every command of `archiver`, typed by its user."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from archiver.core.upkeep.scrub import Scrubber
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from storage_backends.registry import open_destination
from tests.simulator.process import Simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import manifests
from tests.walkthrough.terminal import in_terminal
from tests.walkthrough.user import TRACEBACK, User, until, user_of

COMMANDS = (
    *("demo", "up", "run", "sweep", "archive", "webhook"),
    *("status", "show", "verify", "doctor", "reconcile"),
    *("accept", "reject", "ack", "adopt"),
)


@pytest.fixture
def user(tmp_path: Path, empty_simulator: Simulator, redis_url: str) -> User:
    return user_of(tmp_path, empty_simulator, redis_url)


@pytest.fixture
def archived(user: User, empty_simulator: Simulator) -> dict[str, Any]:
    """A composite that is archived; its manifest."""
    asset = empty_simulator.add_asset("composite")
    user.runs_once()
    return manifests(FileSideDoor(user.folder / "archive"))[asset["id"]]


def media_of(user: User, manifest: dict[str, Any]) -> Path:
    (item,) = manifest["objects"]
    return user.folder / "archive" / str(manifest["folder"]) / str(item["path"])


def _row(user: User, asset_id: str) -> dict[str, Any]:
    row: dict[str, Any] = user.types("show", asset_id, "--json").json["row"]
    return row


# -- help ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_says_what_it_does_with_an_example(command: str, tmp_path: Path) -> None:
    said = User(tmp_path, {"COLUMNS": "80"}).types(command, "-h")

    assert said.exit_code == 0
    assert "Examples:" in said.text
    assert f"archiver {command}" in said.text.split("Examples:")[1]
    assert all(len(line) <= 80 for line in said.stdout.splitlines())


def test_the_help_lists_every_command_and_the_exit_codes(tmp_path: Path) -> None:
    said = User(tmp_path, {}).types("--help")

    assert all(command in said.text for command in (*COMMANDS, "simulator"))
    assert "Exit codes: 0 all is well" in said.text
    assert "or refuses the credentials" in " ".join(said.text.split())


def test_version_is_that_of_the_installed_package(tmp_path: Path) -> None:
    said = User(tmp_path, {}).types("--version")

    assert said.exit_code == 0
    assert said.stdout == f"archiver {metadata.version('recording-archiver')}\n"


def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    user = User(tmp_path, {"_ARCHIVER_COMPLETE": "complete_bash"})

    commands = user.types(COMP_WORDS="archiver re", COMP_CWORD="1").stdout.split()
    options = user.types(COMP_WORDS="archiver verify --qui", COMP_CWORD="2").stdout.split()

    assert commands == ["reconcile", "reject"]
    assert options == ["--quick"]


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        ("--help", {"celery", "boto3", "google.cloud.storage", "httpx", "redis", "pydantic", "structlog"}),
        ("status", {"celery", "boto3", "google.cloud.storage", "httpx", "jwt", "cryptography.fernet"}),
    ],
)
def test_a_command_that_only_tells_imports_nothing_that_copies(
    user: User, command: str, unneeded: set[str]
) -> None:
    said = user.types(command, PYTHONPROFILEIMPORTTIME="1")

    imported = {line.rpartition("|")[2].strip() for line in said.stderr.splitlines()}
    assert "typer" in imported
    assert imported & unneeded == set()


def test_the_simulators_own_options_are_taken_and_explained(tmp_path: Path) -> None:
    user = User(tmp_path, {})

    assert "--chaos-seed" in user.types("simulator", "--help").stdout
    assert user.types("simulator", "--set", "nonsense").exit_code == 2
    with user.starts("simulator", "--set", "minimal") as process:
        until(lambda: "api_url" in (user.folder / "out.txt").read_text(), seconds=30, what="the simulator")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (["runn"], "Did you mean 'run'?"),
        (["status", "--jsn"], "--json"),
        (["run"], "archiver run --once"),
        (["show"], "Missing argument"),
        (["archive"], "Missing argument"),
    ],
)
def test_a_slip_of_the_fingers_gets_a_hint(typed: list[str], hint: str, tmp_path: Path) -> None:
    said = User(tmp_path, {"COLUMNS": "80"}).types(*typed)

    assert said.exit_code == 2
    assert hint in said.text
    assert TRACEBACK not in said.stderr


# -- status, show --------------------------------------------------------------------------------------------
def test_status_answers_whether_everything_is_saved(user: User, archived: dict[str, Any]) -> None:
    said = user.types("status")
    counted = user.types("status", "--json").json

    assert said.exit_code == 0
    assert "The only asset is safe." in said.text
    assert counted["healthy"]
    assert counted["balanced"]
    assert counted["seen"] == 1
    assert counted["states"]["archived"] == 1


def test_status_says_what_waits_and_why_what_needs_a_person_and_what_is_at_risk(
    user: User, empty_simulator: Simulator
) -> None:
    waiting = empty_simulator.add_asset("composite")
    bad = empty_simulator.add_asset("hostile-html")
    risky = empty_simulator.add_asset("chat", age=timedelta(days=13))
    empty_simulator.fault("server-error", on="storage", asset=waiting["id"], times=None)
    empty_simulator.fault("server-error", on="storage", asset=risky["id"], times=None)
    user.runs_once("--wait", "6")

    said = user.types("status")
    counted = user.types("status", "--json").json

    assert said.exit_code == 1
    assert (
        "Needs attention: 0 of 3 known assets are archived; 2 not saved yet, 1 stored with doubts."
        in said.text
    )
    for problem in ("1 asset is at risk: not saved", "1 asset is stored with doubts: look"):
        assert problem in said.text
    for title, asset, why in (
        ("At risk", risky, "answered 503"),
        ("Will be retried", waiting, "answered 503"),
        ("Need a person", bad, "stored, with doubts"),
    ):
        _, _, section = said.text.partition(title)
        assert asset["id"] in section
        assert why in section
    assert [row["asset_id"] for row in counted["at_risk"]] == [risky["id"]]
    assert {row["asset_id"] for row in counted["waiting"]} == {waiting["id"], risky["id"]}
    assert [row["asset_id"] for row in counted["needs_attention"]] == [bad["id"]]
    assert not counted["healthy"]


def test_status_before_the_first_sweep_says_so(user: User) -> None:
    assert "Needs attention: nothing is known yet." in user.types("status").text


def test_show_tells_all_of_one_asset(user: User, archived: dict[str, Any]) -> None:
    said = user.types("show", archived["asset_id"])
    told = user.types("show", archived["asset_id"], "--json").json

    assert said.exit_code == 0
    for item in archived["objects"]:
        assert item["crc32c"] in said.text
    assert told["row"]["state"] == "archived"
    (manifest,) = told["manifests"].values()
    assert manifest == archived


def test_lines_are_neither_wrapped_nor_cut_in_a_pipe(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("hostile-html")
    user.runs_once("--wait", "6")

    lines = user.types("status", COLUMNS=None).stdout.splitlines()

    (line,) = [line for line in lines if line.startswith(asset["id"])]
    (why,) = [line for line in lines if "expected an MP4 file" in line]
    assert "quarantined" in line
    assert len(why) > 80
    assert max(map(len, lines)) < 1000, "not filled up with spaces"


def test_show_of_an_unknown_asset_says_how_to_ask_for_it(user: User) -> None:
    said = user.types("show", "6400c0d3e1b2a3c4d5e6f708")

    assert said.exit_code == 1
    assert "archiver archive 6400c0d3e1b2a3c4d5e6f708" in said.text


# -- verify --------------------------------------------------------------------------------------------------
def test_verify_proves_what_is_whole_with_the_destination_alone(user: User, archived: dict[str, Any]) -> None:
    alone = {"ARCHIVER_REDIS_URL": "redis://127.0.0.1:1/0", "HMS_API_URL": "http://127.0.0.1:1/v2"}
    user.environment |= alone

    said = user.types("verify", "--without-ledger")
    line = user.types("verify", "--without-ledger", "--json").json

    assert said.exit_code == 0, said.text
    assert said.text.startswith("1 of 1 copies are whole, checked by reading")
    assert "were not looked for" in said.text
    assert line["ok"]
    assert line["read_bytes"] == archived["total_size"]


def test_verify_finds_a_flipped_byte_and_quick_does_not_read_it(user: User, archived: dict[str, Any]) -> None:
    media = media_of(user, archived)
    data = bytearray(media.read_bytes())
    data[len(data) // 2] ^= 1
    media.write_bytes(data)

    said = user.types("verify", archived["asset_id"])
    line = user.types("verify", "--json").json

    assert said.exit_code == 1
    assert f"{media.name}: CRC32C" in said.text
    assert "0 of 1 copies are whole" in said.text
    assert not line["ok"]


def test_a_damaged_asset_needs_a_person_until_verify_finds_it_restored(
    user: User, archived: dict[str, Any], redis_url: str
) -> None:
    media = media_of(user, archived)
    good = media.read_bytes()
    media.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    asset_id = archived["asset_id"]
    with (
        closing(open_destination(f"file://{user.folder / 'archive'}")) as store,
        closing(RedisLedger(redis_url, Seal(SecretStr("any")))) as ledger,
    ):
        Scrubber(
            ledger=ledger, destinations=[store], clock=lambda: datetime.now(UTC) + timedelta(days=30)
        ).scrub()
        ledger.forget("scrub")  # of a clock that is ahead of everybody's

    status, shown = user.types("status"), user.types("show", asset_id)
    still = user.types("verify", asset_id)
    media.write_bytes(good)
    restored = user.types("verify", asset_id)

    assert status.exit_code == 1
    _, _, section = status.text.partition("Need a person")
    assert f"{media.name}: CRC32C" in section
    assert f"`archiver verify {asset_id}`" in " ".join(section.split())
    assert "marked as damaged" in shown.text
    assert still.exit_code == 1
    assert restored.exit_code == 0, restored.stderr
    assert user.types("status").exit_code == 0
    assert _row(user, asset_id)["state"] == "archived"


def test_a_copy_that_verify_finds_restored_is_whole_although_no_ledger_can_be_told(
    user: User, archived: dict[str, Any]
) -> None:
    (manifest,) = (user.folder / "archive" / "manifests").rglob("*.json")
    manifest.write_text(json.dumps(archived | {"damage": ["movie.mp4: missing"]}))

    said = user.types("verify", ARCHIVER_REDIS_URL="redis://127.0.0.1:1/0")

    assert said.exit_code == 3, "what is wholly gone, nobody knows"
    assert "1 of 1 copies are whole" in said.text
    assert "Not compared with the ledger: " in said.text
    assert "`reconcile` records it" in " ".join(said.stderr.split())
    assert "damage" not in json.loads(manifest.read_text())


def test_verify_finds_a_deleted_object_also_when_quick(user: User, archived: dict[str, Any]) -> None:
    media_of(user, archived).unlink()

    for options in ([], ["--quick"]):
        said = user.types("verify", *options)

        assert said.exit_code == 1
        assert f"{media_of(user, archived).name}: missing" in said.text


def test_verify_finds_a_deleted_and_a_garbled_manifest(user: User, archived: dict[str, Any]) -> None:
    (manifest,) = (user.folder / "archive" / "manifests").rglob("*.json")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:100])
    garbled = user.types("verify")
    manifest.unlink()
    gone = user.types("verify", archived["asset_id"])
    all_gone = user.types("verify", "--quick")
    nothing = user.types("verify", "--without-ledger")

    assert garbled.exit_code == 1
    assert "not a manifest we understand" in garbled.text
    for said in (gone, all_gone):
        assert said.exit_code == 1
        assert archived["asset_id"] in said.text
        assert "no manifest: the ledger calls it archived" in said.text
    assert nothing.exit_code == 1, "nothing is not a proof of anything"
    assert "nothing is archived" in nothing.text


def test_verify_with_an_empty_ledger_knows_of_nothing_that_should_be_there(
    user: User, archived: dict[str, Any], redis_url: str
) -> None:
    assert archived
    said = user.types("verify", ARCHIVER_REDIS_URL=f"{redis_url.rsplit('/', 1)[0]}/9")

    assert said.exit_code == 3
    assert "it is empty" in said.text
    assert "1 of 1 copies are whole" in said.text


def test_what_verify_found_damaged_is_mended_by_archiving_it_again(
    user: User, archived: dict[str, Any]
) -> None:
    media_of(user, archived).unlink()

    said = user.types("archive", archived["asset_id"])

    assert said.exit_code == 0, said.stderr
    assert user.types("verify").exit_code == 0


def test_what_verify_found_flipped_is_mended_by_archiving_it_again_from_the_start(
    user: User, archived: dict[str, Any]
) -> None:
    media = media_of(user, archived)
    good = media.read_bytes()
    media.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "archiver archive --again" in user.types("verify").text

    said = user.types("archive", "--again", archived["asset_id"])

    assert said.exit_code == 0, said.stderr
    assert media.read_bytes() == good
    assert user.types("verify").exit_code == 0


def test_nothing_is_taken_back_that_100ms_has_deleted(
    user: User, empty_simulator: Simulator, archived: dict[str, Any]
) -> None:
    asset = empty_simulator.add_asset("composite", age=timedelta(days=14, hours=23, minutes=59, seconds=45))
    user.runs_once()
    before = manifests(FileSideDoor(user.folder / "archive"))
    assert asset["id"] in before
    until(
        lambda: datetime.now(UTC) > datetime.fromisoformat(_row(user, asset["id"])["expires_at"]),
        seconds=30,
        what="its retention to end",
    )

    said = user.types("archive", "--again", asset["id"])

    assert "stays as it is" in said.text
    assert said.exit_code == 0
    assert manifests(FileSideDoor(user.folder / "archive")) == before


# -- archive, sweep ------------------------------------------------------------------------------------------
def test_archive_does_at_once_what_waits(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("composite")
    empty_simulator.fault("html", on="storage", asset=asset["id"], times=None)
    assert user.runs_once("--wait", "3").json["states"] == {"waiting": 1}
    empty_simulator.clear_faults()
    assert user.runs_once("--wait", "0").json["states"] == {"waiting": 1}, "not by itself, so soon"

    said = user.types("archive", asset["id"], "--json")

    assert said.exit_code == 0
    assert said.json[0]["state"] == "archived"
    assert user.types("verify").exit_code == 0


# -- accept, reject ------------------------------------------------------------------------------------------
@pytest.fixture
def quarantined(user: User, empty_simulator: Simulator) -> str:
    """An asset that is not what it should be, and is stored as 100ms has it."""
    asset = empty_simulator.add_asset("hostile-html")
    said = user.runs_once("--wait", "6")
    assert said.json["states"] == {"quarantined": 1}, said.stderr
    assert said.exit_code == 1
    asset_id: str = asset["id"]
    return asset_id


def test_what_is_quarantined_is_stored_shown_with_its_doubts_and_not_at_risk(
    user: User, quarantined: str
) -> None:
    status = user.types("status", "--json").json
    said = user.types("status")
    shown = user.types("show", quarantined)
    verified = user.types("verify")

    assert (status["at_risk"], status["healthy"]) == ([], False)
    assert "1 asset is stored with doubts: look, then" in said.text
    assert "archiver accept ID" in said.text
    assert "Stored with doubts; not archived:" in shown.text
    assert "expected an MP4 file, got what looks like an HTML page" in shown.text
    assert "quarantined, not archived" in verified.text
    assert verified.exit_code == 1


def test_what_is_accepted_is_archived(user: User, quarantined: str) -> None:
    said = user.types("accept", quarantined, "--why", "it is all there is", "--by", "ann")

    assert said.exit_code == 0, said.stderr
    assert f"{quarantined} room-composite archived" in said.text
    assert "accepted by ann: it is all there is" in said.text
    assert user.types("status").exit_code == 0
    assert user.types("verify").exit_code == 0
    (manifest,) = manifests(FileSideDoor(user.folder / "archive")).values()
    assert manifest["accepted"]["by"] == "ann"


def test_what_is_rejected_asks_for_nobody_and_stays_stored(user: User, quarantined: str) -> None:
    before = manifests(FileSideDoor(user.folder / "archive"))

    said = user.types("reject", quarantined, "--why", "an empty room", "--by", "ann")

    assert said.exit_code == 0, said.stderr
    assert "rejected by ann: an empty room" in said.text
    status = user.types("status")
    assert "All assets that are wanted are safe: 0 archived, 1 rejected." in status.text
    assert status.exit_code == 0
    assert manifests(FileSideDoor(user.folder / "archive")) == before
    assert user.runs_once("--wait", "0").exit_code == 0


def test_what_is_not_stored_cannot_be_accepted(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("composite")
    empty_simulator.fault("server-error", on="storage", asset=asset["id"], times=None)
    user.runs_once("--wait", "0")

    said = user.types("accept", asset["id"], "nobody")

    assert said.exit_code == 1
    assert f"{asset['id']}: nothing is stored whole at" in said.text
    assert "nobody is not in the ledger" in said.text


def test_archive_takes_an_asset_that_no_sweep_has_seen(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("composite")

    said = user.types("archive", asset["id"])

    assert said.exit_code == 0
    assert f"{asset['id']} room-composite archived" in said.text


def test_archive_of_an_unknown_asset_says_so_and_does_the_others(
    user: User, empty_simulator: Simulator
) -> None:
    asset = empty_simulator.add_asset("composite")

    said = user.types("archive", "6400c0d3e1b2a3c4d5e6f708", asset["id"])

    assert said.exit_code == 1
    assert "6400c0d3e1b2a3c4d5e6f708: 100ms does not know it." in said.text
    assert f"{asset['id']} room-composite archived" in said.text


def test_sweep_enters_what_is_new_and_copies_nothing(user: User, empty_simulator: Simulator) -> None:
    empty_simulator.add_asset("composite")

    first = user.types("sweep", "--json").json
    second = user.types("sweep")

    assert (first["assets"], first["new"]) == (1, 1)
    assert "1 assets" in second.text
    assert "0 new" in second.text
    assert empty_simulator.requests(on="storage") == []
    assert user.types("status", "--json").json["states"]["discovered"] == 1


# -- doctor --------------------------------------------------------------------------------------------------
def test_doctor_finds_a_sound_installation_sound_but_for_what_does_not_run(
    user: User, empty_simulator: Simulator
) -> None:
    user.environment.pop("ARCHIVER_REDIS_URL")

    said = user.types("doctor", "--json")

    assert said.exit_code == 0, said.stdout
    verdicts = {finding["subject"]: finding["verdict"] for finding in said.json}
    assert {s for s, verdict in verdicts.items() if verdict != "ok"} == {
        "beat",
        "control worker",
        "archive worker",
    }
    assert not [path for path in (user.folder / "archive").rglob("*") if path.is_file()], "nothing is left"


def test_doctor_names_each_thing_that_ails_with_its_remedy(user: User, empty_simulator: Simulator) -> None:
    (user.folder / "notes.txt").write_text("mine")
    empty_simulator.skew_api_clock(timedelta(minutes=20))

    said = user.types(
        "doctor",
        "--json",
        HMS_SECRET="an-app-secret-of-somebody-else-altogether",
        ARCHIVER_REDIS_URL="redis://:sesame-sesame@127.0.0.1:1/0",
        ARCHIVER_DESTINATIONS="./notes.txt",
    )

    assert said.exit_code == 1
    problems = {f["subject"].split(" at ")[0]: f for f in said.json if f["verdict"] == "problem"}
    assert set(problems) >= {"100ms API", "clock", "broker and ledger"}
    assert any("notes.txt" in subject for subject in problems)
    assert all(finding["remedy"] for finding in problems.values())
    assert "sesame" not in said.text
    assert TRACEBACK not in said.stderr


def test_doctor_speaks_in_lines_that_fit_the_terminal(user: User) -> None:
    said = user.types("doctor", COLUMNS="80")

    assert all(len(line) <= 80 for line in said.stdout.splitlines())
    assert "persistence" in said.text


# -- in a terminal -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("columns", [80, 120])
def test_run_once_shows_in_a_terminal_what_is_being_copied(
    user: User, empty_simulator: Simulator, columns: int
) -> None:
    asset = empty_simulator.add_asset("large", size_bytes=3_000_000)
    empty_simulator.fault("slow", on="storage", times=None, bytes_per_second=600_000)

    with in_terminal(
        ["run", "--once"], folder=user.folder, env=user.full_environment, columns=columns
    ) as terminal:
        terminal.wait_for("Being copied", seconds=60)
        terminal.wait_for(" of 2.9 MiB", seconds=60)
        exit_code = terminal.wait(seconds=60)

    assert exit_code == 0
    assert asset["id"] in terminal.shown
    assert "The only asset is safe." in terminal.shown
    assert "[info" not in terminal.shown, "events are for logs"
    assert all(len(line) <= columns for line in terminal.shown.replace("\r", "\n").splitlines())


def test_ctrl_c_stops_a_run_in_order_and_the_next_one_goes_on(user: User, empty_simulator: Simulator) -> None:
    empty_simulator.add_asset("large", size_bytes=20_000_000)
    empty_simulator.fault("slow", on="storage", times=None, bytes_per_second=1_000_000)

    with in_terminal(["run", "--once"], folder=user.folder, env=user.full_environment) as terminal:
        terminal.wait_for(" of 19.1 MiB", seconds=60)
        terminal.interrupt()
        terminal.wait_for("Stopping", seconds=20)
        exit_code = terminal.wait(seconds=40)
    empty_simulator.clear_faults()
    said = user.runs_once()

    assert exit_code == 130
    assert TRACEBACK not in terminal.shown
    assert said.json["states"] == {"archived": 1}, said.stderr
    assert user.types("verify").exit_code == 0


def test_status_watch_is_drawn_anew_until_ctrl_c(user: User, empty_simulator: Simulator) -> None:
    with in_terminal(["status", "--watch"], folder=user.folder, env=user.full_environment) as terminal:
        terminal.wait_for("nothing is known yet.", seconds=30)
        empty_simulator.add_asset("composite")
        user.runs_once()
        terminal.wait_for("The only asset is safe.", seconds=30)
        terminal.interrupt()
        exit_code = terminal.wait(seconds=20)

    assert exit_code == 130
    assert TRACEBACK not in terminal.shown


def test_ctrl_c_ends_status_watch_though_sigint_was_ignored_when_it_began(user: User) -> None:
    watch = in_terminal(
        ["status", "--watch"], folder=user.folder, env=user.full_environment, in_background=True
    )
    with watch as terminal:
        terminal.wait_for("nothing is known yet.", seconds=30)
        terminal.interrupt()

        assert terminal.wait(seconds=20) == 130


@pytest.mark.parametrize(
    "dies",
    [
        pytest.param("type('Dies', (), {'__del__': lambda self: ctrl_c()})()", id="in a destructor"),
        pytest.param(
            "(lambda dying: weakref.finalize(dying, ctrl_c))(threading.Event())", id="in a weakref callback"
        ),
    ],
)
def test_ctrl_c_ends_status_watch_at_a_moment_when_python_drops_exceptions(user: User, dies: str) -> None:
    """The garbage collector may call destructors anywhere; what they raise is printed and forgotten."""
    (user.folder / "sitecustomize.py").write_text(
        "import signal, threading, weakref\n"
        "from rich.live import Live\n"
        "ctrl_c = lambda: signal.raise_signal(signal.SIGINT)\n"
        "draw = Live.update\n"
        f"Live.update = lambda *args, **options: (draw(*args, **options), {dies})\n"
    )
    env = user.full_environment | {"PYTHONPATH": str(user.folder)}

    with in_terminal(["status", "--watch"], folder=user.folder, env=env) as terminal:
        terminal.wait_for("nothing is known yet.", seconds=30)

        assert terminal.wait(seconds=20) == 130


def test_the_demo_ends_with_every_asset_as_it_should(tmp_path: Path) -> None:
    user = User(tmp_path, {})

    said = user.types("demo", "--json", seconds=110)

    assert said.exit_code == 0, said.stdout + said.stderr
    told = json.loads(said.stdout)
    assert told["as_it_should"]
    assert len(told["assets"]) == 22
    for asset in told["assets"]:
        assert not asset["open"] or (tmp_path / asset["open"]).is_file()
