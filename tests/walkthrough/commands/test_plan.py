"""`archiver plan`."""

from __future__ import annotations

from tests.simulator.process import Simulator
from tests.walkthrough.user import User


def test_a_plan_says_what_a_run_then_archives_and_writes_nothing(
    user: User, empty_simulator: Simulator
) -> None:
    empty_simulator.add_asset("composite")
    empty_simulator.add_asset("chat")
    user.environment["ARCHIVER_TYPES"] = "room-composite"

    result = user.types("plan")
    found = user.types("plan", "--json").json

    assert result.exit_code == 0, result.stderr
    assert "left out 1," in result.text
    assert "type 'chat' is not in ARCHIVER_TYPES" in result.text
    assert "no forecast" in result.text
    assert not [path for path in user.folder.rglob("archive/**/*") if path.is_file()]
    assert user.types("status", "--json").json["seen"] == 0
    assert found["to_archive"]["assets"] == found["new"] == 1
    assert user.runs_once().states == {"archived": 1, "skipped": 1}
    assert user.types("plan", "--json").json["archived"] == 1


def test_a_bucket_has_a_cost_by_prices_that_are_an_example(user: User, empty_simulator: Simulator) -> None:
    empty_simulator.add_asset("composite")
    user.types("sweep")  # the ledger is not empty: no destination is asked

    result = user.types("plan", ARCHIVER_DESTINATIONS="s3://bucket-of-nobody/prefix")

    assert result.exit_code == 0, result.stderr
    assert "a month for storage" in result.text
    assert "Example prices: S3 Standard" in result.text
