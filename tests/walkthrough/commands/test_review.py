"""`archiver accept` and `archiver reject`."""

from __future__ import annotations

from contextlib import closing

import pytest
from pydantic import SecretStr

from archiver.core.upkeep import not_listed
from archiver.core.upkeep.not_listed import GRACE, Announced
from archiver.ledger.redis.ledger import RedisLedger
from archiver.ledger.sealing import Seal
from tests.simulator.process import Simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import manifests
from tests.walkthrough.user import User


@pytest.fixture
def quarantined(user: User, empty_simulator: Simulator) -> str:
    """An asset that is not what it should be, and is stored as 100ms has it."""
    asset = empty_simulator.add_asset("hostile-html")
    result = user.runs_once("--wait", "6")
    assert result.json["states"] == {"quarantined": 1}, result.stderr
    assert result.exit_code == 1
    asset_id: str = asset["id"]
    return asset_id


def test_what_is_quarantined_is_stored_shown_with_its_doubts_and_not_at_risk(
    user: User, quarantined: str
) -> None:
    status = user.types("status", "--json").json
    result = user.types("status")
    shown = user.types("show", quarantined)
    verified = user.types("verify")

    assert (status["at_risk"], status["healthy"]) == ([], False)
    assert "1 asset is stored with doubts: look, then" in result.text
    assert "archiver accept ID" in result.text
    assert "Stored with doubts; not archived:" in shown.text
    assert "expected an MP4 file, got what looks like an HTML page" in shown.text
    assert "quarantined, not archived" in verified.text
    assert verified.exit_code == 1


def test_what_is_accepted_is_archived(user: User, quarantined: str) -> None:
    result = user.types("accept", quarantined, "--why", "it is all there is", "--by", "ann")

    assert result.exit_code == 0, result.stderr
    assert f"{quarantined} room-composite archived" in result.text
    assert "accepted by ann: it is all there is" in result.text
    assert user.types("status").exit_code == 0
    assert user.types("verify").exit_code == 0
    (manifest,) = manifests(FileSideDoor(user.folder / "archive")).values()
    assert manifest["accepted"]["by"] == "ann"


def test_what_is_rejected_is_no_longer_reported_and_stays_stored(user: User, quarantined: str) -> None:
    before = manifests(FileSideDoor(user.folder / "archive"))

    result = user.types("reject", quarantined, "--why", "an empty room", "--by", "ann")

    assert result.exit_code == 0, result.stderr
    assert "rejected by ann: an empty room" in result.text
    status = user.types("status")
    assert "All assets that are wanted are safe: 0 archived, 1 rejected." in status.text
    assert status.exit_code == 0
    assert manifests(FileSideDoor(user.folder / "archive")) == before
    assert user.runs_once("--wait", "0").exit_code == 0


def test_what_is_not_stored_cannot_be_accepted(user: User, empty_simulator: Simulator) -> None:
    asset = empty_simulator.add_asset("composite")
    empty_simulator.fault("server-error", on="storage", asset=asset["id"], times=None)
    user.runs_once("--wait", "0")

    result = user.types("accept", asset["id"], "nobody")

    assert result.exit_code == 1
    assert f"{asset['id']}: nothing is stored whole at" in result.text
    assert "nobody is not in the ledger" in result.text


def test_what_was_announced_and_is_not_listed_ends_with_an_acknowledgement(
    user: User, empty_simulator: Simulator, redis_url: str
) -> None:
    user.runs_once("--wait", "0")
    with closing(RedisLedger(redis_url, Seal(SecretStr("any")))) as ledger:
        at = ledger.now() - 2 * GRACE
        not_listed.note(ledger, Announced("s-1", "recording.success"), is_listed=False, now=at)
    before = user.types("status")
    assert before.exit_code == 1
    assert "`archiver ack s-1 --why ...`" in before.text

    acknowledged = user.types("ack", "s-1", "--why", "100ms never recorded it", "--by", "ann")

    assert acknowledged.exit_code == 0
    assert "s-1: acknowledged, what was announced and is not listed." in acknowledged.text
    after = user.types("status")
    assert after.exit_code == 0, after.text
    assert (
        "Acknowledged by ann: session s-1 is announced and not listed (100ms never recorded it)."
        in after.text
    )
    assert user.types("ack", "s-2").exit_code == 1
