"""Our clock and the API's are apart: tokens are valid all the same, everything is saved, and a person is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.simulator.process import running_simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import check_against_truth
from tests.walkthrough.user import user_of


@pytest.mark.parametrize(
    ("api_is_ahead", "outcome"),
    [(timedelta(seconds=-15), False), (timedelta(minutes=-6), True), (timedelta(days=3), True)],
    ids=str,
)
def test_everything_is_saved_whatever_our_clock_says(
    tmp_path: Path, redis_url: str, api_is_ahead: timedelta, outcome: bool
) -> None:
    with running_simulator("demo") as simulator:
        simulator.skew_api_clock(api_is_ahead)
        user = user_of(tmp_path, simulator, redis_url)

        result = user.runs_once()

        assert result.json["states"] == {"archived": 20, "external": 1, "source_failed": 1}, result.stderr
        check_against_truth(FileSideDoor(tmp_path / "archive"), simulator)
        problems = {problem["code"] for problem in user.types("status", "--json").json["problems"]}
        assert ("clock_is_wrong" in problems) is outcome
