from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.simulator.process import Simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import manifests
from tests.walkthrough.user import User

BOTH = "./archive,./second"


def test_a_second_destination_is_filled_and_a_bucket_moved(
    user: User, archived: dict[str, Any], empty_simulator: Simulator
) -> None:
    asset_id = archived["asset_id"]
    listed = user.types("replicate", "--dry-run", "--to", "./second", "--json", ARCHIVER_DESTINATIONS=BOTH)
    assert (listed.exit_code, listed.json["assets"]) == (0, 1)
    assert not (user.folder / "second").exists() or not manifests(FileSideDoor(user.folder / "second"))

    copied = user.types("replicate", "--from", "./archive", "--to", "./second", ARCHIVER_DESTINATIONS=BOTH)

    assert copied.exit_code == 0, copied.text
    assert "1 copied" in copied.text
    assert "has all that was asked for" in copied.text
    second = FileSideDoor(user.folder / "second")
    moved = manifests(second)[asset_id]
    assert moved["objects"] == archived["objects"]
    for item in moved["objects"]:
        key = f"{moved['folder']}/{item['path']}"
        assert second.read(key) == FileSideDoor(user.folder / "archive").read(key)
    shown = user.types("show", asset_id, ARCHIVER_DESTINATIONS=BOTH)
    assert shown.text.count("whole at") == 2

    alone = user.types("verify", ARCHIVER_DESTINATIONS="./second")
    assert alone.exit_code == 0, alone.text
    again = user.types("replicate", "--json", ARCHIVER_DESTINATIONS=BOTH)
    assert (again.exit_code, again.json["copied"], again.json["complete"]) == (0, 0, True)


def test_a_copy_that_is_gone_is_damage_until_its_twin_repairs_it(
    user: User, empty_simulator: Simulator
) -> None:
    both: dict[str, Any] = {"ARCHIVER_DESTINATIONS": BOTH, "ARCHIVER_RETENTION_DAYS": "1"}
    asset = empty_simulator.add_asset("composite", age=timedelta(days=2))
    assert user.runs_once(**both).states == {"archived": 1}
    second = FileSideDoor(user.folder / "second")
    manifest = manifests(second)[asset["id"]]
    path = user.folder / "second" / manifest["folder"] / manifest["objects"][0]["path"]
    before = path.read_bytes()
    path.unlink()
    next((user.folder / "second" / "manifests").rglob("*.json")).unlink()
    compared = user.types("reconcile", **both)
    assert compared.exit_code == 1
    assert user.types("show", asset["id"], "--json", **both).json["row"]["state"] == "damaged"

    repaired = user.types("replicate", "--state", "damaged", "--json", **both)

    assert (repaired.exit_code, repaired.json["copied"]) == (0, 1), repaired.text
    assert path.read_bytes() == before
    assert user.types("show", asset["id"], "--json", **both).json["row"]["state"] == "archived"


def test_what_verify_found_damaged_is_not_called_complete(user: User, empty_simulator: Simulator) -> None:
    both: dict[str, Any] = {"ARCHIVER_DESTINATIONS": BOTH}
    asset = empty_simulator.add_asset("composite")
    assert user.runs_once(**both).states == {"archived": 1}
    manifest = manifests(FileSideDoor(user.folder / "second"))[asset["id"]]
    (user.folder / "second" / manifest["folder"] / manifest["objects"][0]["path"]).unlink()
    assert user.types("verify", "--no-mark", **both).exit_code == 1

    said = user.types("replicate", **both)

    assert said.exit_code == 1, said.text
    assert f"Not repaired: {asset['id']}" in said.text
    assert "archiver archive --again" in said.text
    assert "has all that was asked for" not in said.text

    assert user.types("verify", **both).exit_code == 1
    marked = user.types("replicate", **both)

    assert (marked.exit_code, "Not repaired" in marked.text) == (1, False), marked.text
    assert "1 due to be copied from 100ms by the workers" in marked.text
    assert user.types("archive", "--again", asset["id"], **both).exit_code == 0
    assert user.types("replicate", **both).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "destinations", "words"),
    [
        (("--to", "s3://not-ours/x"), BOTH, "is not among ARCHIVER_DESTINATIONS"),
        (("--from", "./archive", "--to", "./archive"), BOTH, "name another one"),
        ((), "./archive", "names one destination"),
        (("--rate", "fast"), BOTH, "such as 50MB"),
        (("--state", "lost"), BOTH, "one of damaged"),
        (("--since", "soon"), BOTH, "such as 2026-03-01"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_copied(
    user: User, arguments: tuple[str, ...], destinations: str, words: str
) -> None:
    said = user.types("replicate", *arguments, ARCHIVER_DESTINATIONS=destinations)

    assert said.exit_code == 2
    assert words in " ".join(said.text.replace("│", " ").split())
    assert "Traceback" not in said.text
