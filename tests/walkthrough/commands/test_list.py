"""`archiver list` finds assets by what a person knows of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis
from typer.testing import CliRunner

from archiver.ledger.models import AssetState, Seen
from archiver.ledger.redis.ledger import RedisLedger
from tests.ledger.harnesses import SEAL
from tests.simulator.process import Simulator
from tests.walkthrough.user import User, user_of
from worker.cli import app, cmd_list

DAY = timedelta(days=1)


@pytest.fixture
def user(tmp_path: Path, redis_url: str) -> User:
    now = datetime.now(UTC)
    with closing(RedisLedger(redis_url, SEAL)) as ledger:
        ledger.discover(
            [
                _seen("urgent", now, left=DAY, room="r1", session="s1"),
                _seen("young", now, left=14 * DAY, room="r1", session="s2"),
                _seen("chat", now, left=14 * DAY, room="r2", session="s3", asset_type="chat"),
                _seen(
                    "=cmd",
                    now,
                    left=10 * DAY,
                    room="r3",
                    session="s4",
                    created=datetime(2026, 3, 1, tzinfo=UTC),
                ),
            ]
        )
    return User(tmp_path, {"ARCHIVER_REDIS_URL": redis_url})


def _seen(
    asset_id: str,
    now: datetime,
    *,
    left: timedelta,
    room: str,
    session: str,
    asset_type: str = "room-composite",
    created: datetime | None = None,
) -> Seen:
    return Seen(
        asset_id,
        asset_type,
        now + left,
        AssetState.DISCOVERED,
        created_at=created or now - DAY,
        room_id=room,
        session_id=session,
        size_bytes=7,
    )


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], {"urgent", "young", "chat", "=cmd"}),
        (["--room", "r1"], {"urgent", "young"}),
        (["--room", "r1", "--session", "s2"], {"young"}),
        (["--type", "chat"], {"chat"}),
        (["--state", "archived"], set()),
        (["--state", "discovered", "--room", "r2"], {"chat"}),
        (["--at-risk"], {"urgent"}),
        (["--since", "2026-02-01", "--until", "2026-03-01T00:00:01Z"], {"=cmd"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "finds",
)
def test_filters(user: User, options: list[str], found: set[str]) -> None:
    result = user.types("list", "--json", *options)

    assert result.exit_code == 0
    assert {json.loads(line)["asset_id"] for line in result.stdout.splitlines()} == found


def test_csv_has_every_row_and_no_formula(user: User) -> None:
    rows = list(csv.DictReader(io.StringIO(user.types("list", "--csv").stdout)))

    assert {row["asset_id"] for row in rows} == {"urgent", "young", "chat", "'=cmd"}
    assert {row["size_bytes"] for row in rows} == {"7"}


def test_a_person_sees_whole_ids(user: User) -> None:
    assert "urgent" in user.types("list", "--at-risk").stdout


@pytest.mark.parametrize("options", [["--state", "unheard"], ["--since", "yesterday"]])
def test_a_wrong_filter_is_2(user: User, options: list[str]) -> None:
    assert user.types("list", *options).exit_code == 2


@pytest.mark.parametrize(("options", "is_quiet"), [([], False), (["--csv"], False), (["--json"], False)])
def test_it_tells_how_many_rows_it_has_read_also_of_those_it_does_not_list(
    user: User, monkeypatch: pytest.MonkeyPatch, options: list[str], is_quiet: bool
) -> None:
    told: list[object] = []

    @contextmanager
    def shown(*, quiet: bool = False) -> Iterator[Callable[..., None]]:
        told.append(quiet)
        yield lambda *work: told.append(work)

    monkeypatch.setattr(cmd_list, "progress_shown", shown)
    for name, value in user.full_environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["list", "--room", "r1", *options])

    assert result.exit_code == 0
    assert told == [is_quiet, *(("reading the ledger", number, 4) for number in range(1, 5))]


def test_the_recordings_of_a_user_are_found_from_the_bucket(
    tmp_path: Path, redis_url: str, empty_simulator: Simulator
) -> None:
    user = user_of(tmp_path, empty_simulator, redis_url=redis_url)
    for _ in range(3):
        empty_simulator.add_asset("chat")
    assert user.types("run", "--once", "--wait", "0").exit_code == 0
    records = {
        record["session_id"]: record
        for record in (json.loads(path.read_text()) for path in tmp_path.rglob("sessions/*/session.json"))
    }
    assert len(records) == 3
    wanted = next(iter(records.values()))["peers"][0]["user_id"]
    sessions = {
        session_id
        for session_id, record in records.items()
        if wanted in {peer["user_id"] for peer in record["peers"]}
    }
    empty_simulator.fault("server-error", on="api", times=None)

    shown = user.types("list", "--user", wanted, "--json")
    none = user.types("list", "--user", "nobody")

    assert {json.loads(line)["session_id"] for line in shown.stdout.splitlines()} == sessions
    assert all(record["room_name"].startswith("Room ") for record in records.values())
    assert (none.exit_code, "No asset." in none.stdout) == (0, True)
    assert "No session with user nobody" in none.text


def test_no_session_is_kept_where_personal_data_must_not_be(
    tmp_path: Path, redis_url: str, empty_simulator: Simulator
) -> None:
    user = user_of(tmp_path, empty_simulator, redis_url=redis_url, ARCHIVER_KEEP_SESSIONS="false")
    empty_simulator.add_asset("chat")

    assert user.types("run", "--once", "--wait", "0").exit_code == 0
    assert list(tmp_path.rglob("session.json")) == []


def test_the_recordings_of_a_user_are_erased_from_the_bucket_alone(
    tmp_path: Path, redis_url: str, empty_simulator: Simulator
) -> None:
    user = user_of(tmp_path, empty_simulator, redis_url=redis_url)
    asset_id = str(empty_simulator.add_asset("chat")["id"])
    assert user.types("run", "--once", "--wait", "0").exit_code == 0
    (session,) = tmp_path.rglob("sessions/*/session.json")
    wanted = json.loads(session.read_text())["peers"][0]["user_id"]
    with closing(Redis.from_url(redis_url)) as redis:
        redis.flushall()

    listed = user.types("list", "--user", wanted, "--json")
    erased = user.types("erase", "--user", wanted, "--shared", "--reason", "GDPR-17", "--yes")

    assert [json.loads(line)["asset_id"] for line in listed.stdout.splitlines()] == [asset_id], listed.text
    assert (erased.exit_code, "1 erased." in erased.text) == (0, True), erased.text
    (tombstone,) = (path for path in tmp_path.rglob("*") if path.is_file() and asset_id in str(path))
    assert json.loads(tombstone.read_text())["state"] == "erased"
