"""Cold storage classes of S3: what a HEAD tells of them, and the request to make an object readable.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from storage_backends.optional import Thaw, ThawSpeed

STANDARD = "STANDARD"
_INTELLIGENT = "INTELLIGENT_TIERING"
_LONGEST: Mapping[tuple[str, ThawSpeed], timedelta] = {
    ("GLACIER", ThawSpeed.STANDARD): timedelta(hours=5),
    ("GLACIER", ThawSpeed.BULK): timedelta(hours=12),
    ("DEEP_ARCHIVE", ThawSpeed.STANDARD): timedelta(hours=12),
    ("DEEP_ARCHIVE", ThawSpeed.BULK): timedelta(hours=48),
    ("ARCHIVE_ACCESS", ThawSpeed.STANDARD): timedelta(hours=5),
    ("ARCHIVE_ACCESS", ThawSpeed.BULK): timedelta(hours=12),
    ("DEEP_ARCHIVE_ACCESS", ThawSpeed.STANDARD): timedelta(hours=12),
    ("DEEP_ARCHIVE_ACCESS", ThawSpeed.BULK): timedelta(hours=48),
}
_EXPIRY = re.compile(r'expiry-date="([^"]+)"')


def state_of(head: Mapping[str, Any], speed: ThawSpeed) -> Thaw:
    """Tell the class of an object, and whether it can be read."""
    name = str(head.get("ArchiveStatus") or head.get("StorageClass") or STANDARD)
    wait = _LONGEST.get((name, speed))
    restore = str(head.get("Restore") or "")
    if wait is not None and 'ongoing-request="false"' in restore:
        return Thaw(name, readable_until=_expiry(restore))
    return Thaw(name, ready_within=wait)


def is_under_way(head: Mapping[str, Any]) -> bool:
    return 'ongoing-request="true"' in str(head.get("Restore") or "")


def request(head: Mapping[str, Any], speed: ThawSpeed, days: int) -> dict[str, Any]:
    """Return the RestoreRequest. Objects of Intelligent-Tiering come back for good, without days."""
    asked: dict[str, Any] = {"GlacierJobParameters": {"Tier": speed.value.capitalize()}}
    return asked if head.get("StorageClass") == _INTELLIGENT else {"Days": days, **asked}


def _expiry(restore: str) -> datetime | None:
    found = _EXPIRY.search(restore)
    try:
        return parsedate_to_datetime(found[1]) if found else None
    except ValueError:
        return None
