from __future__ import annotations

from datetime import UTC, datetime

import pytest

from archiver.core.deadlines import UNDATED
from archiver.core.judging import Scope, judge
from archiver.ledger.models import AssetState
from tests.core.examples import NOW, RETENTION, asset

EVERYTHING = Scope(RETENTION)


def test_a_completed_asset_is_to_be_archived_before_its_retention_ends() -> None:
    seen = judge(asset(), EVERYTHING)

    assert seen.verdict is AssetState.DISCOVERED
    assert seen.created_at is not None
    assert seen.expires_at == seen.created_at + RETENTION


def test_a_failed_asset_has_nothing_to_save() -> None:
    assert judge(asset(status="failed"), EVERYTHING).verdict is AssetState.SOURCE_FAILED


@pytest.mark.parametrize("status", ["", "processing", "COMPLETED", None])
def test_a_status_nobody_documents_is_neither_success_nor_an_end(status: str | None) -> None:
    assert judge(asset(status=status), EVERYTHING).verdict is AssetState.DISCOVERED


def test_an_unknown_type_is_saved_like_any_other() -> None:
    assert judge(asset(type="hologram"), EVERYTHING).verdict is AssetState.DISCOVERED


def test_filters_skip_what_they_do_not_name() -> None:
    by_type = Scope(RETENTION, types=frozenset({"chat"}))
    by_room = Scope(RETENTION, rooms=frozenset({"room-2"}))

    assert judge(asset(), by_type).verdict is AssetState.SKIPPED
    assert judge(asset(status="failed"), by_room).verdict is AssetState.SKIPPED
    assert judge(asset(type="chat"), by_type).verdict is AssetState.DISCOVERED


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        ("s3://ours/recordings/a.mp4", AssetState.EXTERNAL),
        ("s3://ours", AssetState.EXTERNAL),
        ("s3://ours-not/recordings/a.mp4", AssetState.DISCOVERED),
        ("s3://hms/ours/a.mp4", AssetState.DISCOVERED),
        (None, AssetState.DISCOVERED),
    ],
)
def test_an_asset_in_the_teams_own_bucket_is_external(path: str | None, verdict: AssetState) -> None:
    assert judge(asset(path=path), Scope(RETENTION, own_paths=["s3://ours/"])).verdict is verdict


@pytest.mark.parametrize("created_at", ["yesterday", "0001-01-01T00:00:00Z", "2026-03-09T00:00:00Z"])
def test_an_asset_without_a_usable_date_goes_first(created_at: str) -> None:
    seen = judge(asset(created_at=created_at), EVERYTHING, NOW)

    assert seen.expires_at == UNDATED


def test_a_date_that_cannot_be_true_is_kept_for_its_manifest_lies_under_it() -> None:
    seen = judge(asset(created_at="1970-01-01T00:00:00Z"), EVERYTHING, NOW)

    assert seen.created_at == datetime(1970, 1, 1, tzinfo=UTC)
