"""Keep the signed thumbnail URLs of `hls.recording.success` webhooks, encrypted, until the asset is archived. The API
itself signs no thumbnails. Filled by `archiver webhook`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

from pydantic import SecretStr

from archiver.hms.webhooks import RecordingEvent
from archiver.ledger.base import Facts

LIFETIME = timedelta(days=3)  # longest default lifetime of URLs that 100ms signs
_NAME = "thumbnails:"


def remember(ledger: Facts, event: RecordingEvent) -> int:
    """Keep the thumbnails of `event` for each asset it names; return the number of assets. Idempotent."""
    if not event.thumbnails:
        return 0
    urls = {thumbnail.location: thumbnail.url.get_secret_value() for thumbnail in event.thumbnails}
    for asset_id in event.asset_ids:
        ledger.remember_secret(_NAME + asset_id, json.dumps(urls), LIFETIME)
    return len(event.asset_ids)


def recall(ledger: Facts, asset_id: str) -> Mapping[str, SecretStr]:
    """Return signed URLs by storage path; empty when none were stored, or they expired."""
    stored = ledger.recall_secret(_NAME + asset_id)
    return {path: SecretStr(url) for path, url in json.loads(stored).items()} if stored else {}
