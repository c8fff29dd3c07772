"""`archiver archive` of an asset that is kept with doubts, while its source is unreachable."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulator.process import Simulator
from tests.walkthrough.user import User, user_of


@pytest.fixture
def user(tmp_path: Path, empty_simulator: Simulator, redis_url: str) -> User:
    return user_of(tmp_path, empty_simulator, redis_url)


def test_what_is_kept_stays_kept_when_its_source_does_not_answer(
    user: User, empty_simulator: Simulator
) -> None:
    asset = empty_simulator.add_asset("chat", row={"size": 1})
    assert user.runs_once("--wait", "6").json["states"] == {"quarantined": 1}
    empty_simulator.fault("server-error", on="storage", asset=asset["id"], times=None)

    result = user.types("archive", asset["id"], "--json")

    assert result.json[0]["state"] == "quarantined"
