"""Signed thumbnail URLs as a webhook brought them, kept sealed until the asset is archived.

The API signs no thumbnail (100ms-api.md); the `hls.recording.success` webhook does. `archiver webhook` stores
what one said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

from pydantic import SecretStr

from archiver.hms.webhooks import RecordingEvent
from archiver.ledger.base import Facts

LIFETIME = timedelta(days=3)  # the longest that 100ms signs a URL for by default
_NAME = "thumbnails:"


def remember(ledger: Facts, event: RecordingEvent) -> int:
    """Keep the thumbnails of `event` for each asset it names; for how many assets. Repeatable."""
    if not event.thumbnails:
        return 0
    urls = {thumbnail.location: thumbnail.url.get_secret_value() for thumbnail in event.thumbnails}
    for asset_id in event.asset_ids:
        ledger.remember_secret(_NAME + asset_id, json.dumps(urls), LIFETIME)
    return len(event.asset_ids)


def recall(ledger: Facts, asset_id: str) -> Mapping[str, SecretStr]:
    """Signed URLs by storage path; empty when none were stored, or too long ago."""
    stored = ledger.recall_secret(_NAME + asset_id)
    return {path: SecretStr(url) for path, url in json.loads(stored).items()} if stored else {}
