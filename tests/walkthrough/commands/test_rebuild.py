"""`archiver rebuild`."""

from __future__ import annotations

from typing import Any

from redis import Redis

from tests.simulator.process import Simulator
from tests.walkthrough.user import User


def test_a_lost_ledger_is_made_from_the_bucket_alone_and_again_changes_nothing(
    user: User, archived: dict[str, Any], empty_simulator: Simulator, redis_url: str
) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
    empty_simulator.clear_requests()

    first = user.types("rebuild", "--json")
    second = user.types("rebuild")

    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr
    assert (first.json["before"], first.json["after"], first.json["entered"]) == (0, 1, 1)
    assert "The ledger knew 1 assets and knows 1 now. Entered: none" in second.text
    assert empty_simulator.requests() == [], "nothing is asked of 100ms"
    assert user.types("status", "--json").json["states"]["archived"] == 1
    assert user.types("verify").exit_code == 0


def test_a_manifest_that_cannot_be_understood_is_1_and_the_rest_is_entered(
    user: User, archived: dict[str, Any], redis_url: str
) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
    (user.folder / "archive/manifests/undated").mkdir(parents=True)
    (user.folder / "archive/manifests/undated/broken.json").write_text("{")

    result = user.types("rebuild", "--json")

    assert result.exit_code == 1
    assert (result.json["entered"], result.json["unreadable"]) == (1, 1)


def test_a_destination_that_is_away_is_3(user: User, archived: dict[str, Any]) -> None:
    user.environment["ARCHIVER_DESTINATIONS"] = "s3://bucket/x?endpoint_url=http://127.0.0.1:9&region=none"
    user.environment |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_MAX_ATTEMPTS": "1"}

    assert user.types("rebuild").exit_code == 3
