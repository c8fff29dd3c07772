"""`archiver verify`."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from archiver.core.judging import as_known
from archiver.core.upkeep.scrub import Scrubber
from archiver.ledger.models import AssetState, Settlement
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from storage_backends.registry import open_destination
from tests.simulator.process import Simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import manifests
from tests.walkthrough.user import User, until


def test_verify_needs_only_the_destination(user: User, archived: dict[str, Any]) -> None:
    alone = {"ARCHIVER_REDIS_URL": "redis://127.0.0.1:1/0", "HMS_API_URL": "http://127.0.0.1:1/v2"}
    user.environment |= alone

    result = user.types("verify", "--without-ledger")
    line = user.types("verify", "--without-ledger", "--json").json

    assert result.exit_code == 0, result.text
    assert result.text.startswith("1 of 1 copies are whole, checked by reading")
    assert "were not looked for" in result.text
    assert line["ok"]
    assert line["read_bytes"] == archived["total_size"]


def test_verify_finds_a_flipped_byte_and_quick_does_not_read_it(user: User, archived: dict[str, Any]) -> None:
    media = user.media_of(archived)
    data = bytearray(media.read_bytes())
    data[len(data) // 2] ^= 1
    media.write_bytes(data)

    result = user.types("verify", archived["asset_id"])
    line = user.types("verify", "--json").json

    assert result.exit_code == 1
    assert f"{media.name}: CRC32C" in result.text
    assert "0 of 1 copies are whole" in result.text
    assert not line["ok"]


def test_a_damaged_asset_needs_a_person_until_verify_finds_it_restored(
    user: User, archived: dict[str, Any], redis_url: str
) -> None:
    media = user.media_of(archived)
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
    assert user.row(asset_id)["state"] == "archived"


def test_a_copy_that_verify_finds_restored_is_whole_although_no_ledger_can_be_told(
    user: User, archived: dict[str, Any]
) -> None:
    (manifest,) = (user.folder / "archive" / "manifests").rglob("*.json")
    manifest.write_text(json.dumps(archived | {"damage": ["movie.mp4: missing"]}))

    result = user.types("verify", ARCHIVER_REDIS_URL="redis://127.0.0.1:1/0")

    assert result.exit_code == 3, "what is wholly gone, nobody knows"
    assert "1 of 1 copies are whole" in result.text
    assert "Not compared with the ledger: " in result.text
    assert "`reconcile` records it" in " ".join(result.stderr.split())
    assert "damage" not in json.loads(manifest.read_text())


def test_verify_finds_a_deleted_object_also_when_quick(user: User, archived: dict[str, Any]) -> None:
    user.media_of(archived).unlink()

    for options in ([], ["--quick"]):
        result = user.types("verify", *options)

        assert result.exit_code == 1
        assert f"{user.media_of(archived).name}: missing" in result.text


def test_verify_finds_a_deleted_and_an_invalid_manifest(user: User, archived: dict[str, Any]) -> None:
    (manifest,) = (user.folder / "archive" / "manifests").rglob("*.json")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:100])
    invalid = user.types("verify", "--no-mark")
    manifest.unlink()
    gone = user.types("verify", archived["asset_id"])
    all_gone = user.types("verify", "--quick")
    nothing = user.types("verify", "--without-ledger")

    assert invalid.exit_code == 1
    assert "not a manifest we understand" in invalid.text
    for result in (gone, all_gone):
        assert result.exit_code == 1
        assert archived["asset_id"] in result.text
        assert "no manifest: the ledger calls it archived" in result.text
    assert nothing.exit_code == 1, "nothing is not a proof of anything"
    assert "nothing is archived" in nothing.text


def test_verify_with_an_empty_ledger_knows_of_nothing_that_should_be_there(
    user: User, archived: dict[str, Any], redis_url: str
) -> None:
    assert archived
    result = user.types("verify", ARCHIVER_REDIS_URL=f"{redis_url.rsplit('/', 1)[0]}/9")

    assert result.exit_code == 3
    assert "it is empty" in result.text
    assert "1 of 1 copies are whole" in result.text


def test_archiving_again_fixes_what_verify_found_missing(user: User, archived: dict[str, Any]) -> None:
    user.media_of(archived).unlink()

    result = user.types("archive", archived["asset_id"])

    assert result.exit_code == 0, result.stderr
    assert user.types("verify").exit_code == 0


def test_archive_again_fixes_what_verify_found_corrupt(user: User, archived: dict[str, Any]) -> None:
    media = user.media_of(archived)
    good = media.read_bytes()
    media.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "archiver archive --again" in user.types("verify").text

    result = user.types("archive", "--again", archived["asset_id"])

    assert result.exit_code == 0, result.stderr
    assert media.read_bytes() == good
    assert user.types("verify").exit_code == 0


def test_archive_reads_back_what_was_found_damaged_before_it_takes_it_as_whole(
    user: User, redis_url: str, archived: dict[str, Any]
) -> None:
    """By its sizes the copy is whole: the manifest could not be marked when the damage was found."""
    media = user.media_of(archived)
    good = media.read_bytes()
    media.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with closing(RedisLedger(redis_url, Seal(SecretStr("any")))) as ledger:
        row = ledger.get(archived["asset_id"])
        assert row is not None
        ledger.record_archived(as_known(row), Settlement(AssetState.DAMAGED, reason="CRC32C"))

    result = user.types("archive", archived["asset_id"])

    assert result.exit_code == 0, result.stderr
    assert media.read_bytes() == good
    assert user.types("verify").exit_code == 0


def test_nothing_is_marked_as_damaged_that_100ms_has_deleted(
    user: User, empty_simulator: Simulator, archived: dict[str, Any]
) -> None:
    asset = empty_simulator.add_asset("composite", age=timedelta(days=14, hours=23, minutes=59, seconds=45))
    user.runs_once()
    before = manifests(FileSideDoor(user.folder / "archive"))
    assert asset["id"] in before
    until(
        lambda: datetime.now(UTC) > datetime.fromisoformat(user.row(asset["id"])["expires_at"]),
        seconds=30,
        what="its retention to end",
    )

    result = user.types("archive", "--again", asset["id"])

    assert "stays as it is" in result.text
    assert result.exit_code == 0
    assert manifests(FileSideDoor(user.folder / "archive")) == before
