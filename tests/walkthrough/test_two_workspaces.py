"""Two 100ms accounts on one Redis database."""

from __future__ import annotations

from pathlib import Path

from tests.simulator.process import Simulator, running_simulator
from tests.walkthrough.user import user_of


def test_with_a_prefix_of_its_own_each_has_its_own_ledger(
    tmp_path: Path, empty_simulator: Simulator, redis_url: str
) -> None:
    with running_simulator("empty", access_key="of-staging") as other:
        folders = [tmp_path / "production", tmp_path / "staging"]
        for folder in folders:
            folder.mkdir()
        production = user_of(folders[0], empty_simulator, redis_url)
        staging = user_of(folders[1], other, redis_url)
        ours, theirs = empty_simulator.add_asset("chat")["id"], other.add_asset("chat")["id"]
        assert production.runs_once("--wait", "0").states == {"archived": 1}

        refused = staging.runs_once("--wait", "0")
        verbs = [
            ("reconcile", "--yes"),
            ("scrub", "--now"),
            ("expire", "--yes"),
            ("rebuild",),
            ("erase", ours, "--reason", "T-1", "--yes"),
        ]
        changing = [staging.types(*verb) for verb in verbs]
        assert production.types("status", "--json").json["states"]["archived"] == 1, "none is due again"
        separate = staging.runs_once("--wait", "0", ARCHIVER_REDIS_PREFIX="staging")

        for each in (refused, *changing):
            assert each.exit_code == 2, each.text
            assert "belongs to another 100ms workspace" in each.text
        assert "ARCHIVER_REDIS_PREFIX" in refused.text
        assert separate.states == {"archived": 1}
        assert staging.types("show", theirs, "--json", ARCHIVER_REDIS_PREFIX="staging").exit_code == 0
        assert staging.types("show", ours, ARCHIVER_REDIS_PREFIX="staging").exit_code == 1
        assert production.types("status", "--json").json["states"]["archived"] == 1
