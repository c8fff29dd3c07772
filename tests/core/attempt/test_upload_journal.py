"""What the log says of an upload that is restarted although another worker had begun it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from archiver.core.attempt.upload_journal import LedgerUploadJournal
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Seen
from archiver.transfer.base import SavedUpload
from storage_backends.base import object_key
from tests.core.examples import NOW

KEY = object_key("asset-1/video.mp4")
UPLOAD = SavedUpload("a secret", 300, 100, '"v1"', {})


@pytest.fixture
def journal() -> LedgerUploadJournal:
    ledger = MemoryLedger(lambda: NOW)
    ledger.discover([Seen("asset-1", "room-composite", NOW + timedelta(days=9), AssetState.DISCOVERED)])
    lease = ledger.lease("asset-1", "worker", timedelta(minutes=2))
    assert lease
    return LedgerUploadJournal(ledger, lease)


def test_a_first_upload_is_nothing_to_speak_of(journal: LedgerUploadJournal) -> None:
    with capture_logs() as reported:
        assert journal.load("s3://bucket", KEY) is None
        journal.begun("s3://bucket", KEY, UPLOAD)
        journal.load("s3://bucket", object_key("asset-1/other.mp4"))

    assert reported == []


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (replace(UPLOAD, source_etag='"v2"'), "the source changed"),
        (replace(UPLOAD, size_bytes=301), "the source changed"),
        (replace(UPLOAD, part_bytes=50), "its parts were of 100 bytes, and are of 50 now"),
        (replace(UPLOAD, token="another secret"), "the store does not know it any more"),
    ],
)
def test_a_restarted_upload_is_logged_with_its_reason(
    journal: LedgerUploadJournal, now: SavedUpload, reason: str
) -> None:
    journal.begun("s3://bucket", KEY, UPLOAD)

    with capture_logs() as reported:
        journal.load("s3://bucket", KEY)
        journal.begun("s3://bucket", KEY, now)

    (event,) = reported
    assert (event["event"], event["asset_id"], event["key"]) == ("upload_begun_again", "asset-1", KEY)
    assert event["reason"].startswith(reason)
    assert "secret" not in str(event)
