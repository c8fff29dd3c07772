"""Read from the broker which assets have a message that no worker has taken yet."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError

from archiver.ledger.errors import LedgerUnavailable
from archiver.ledger.redis.calls import connect
from worker.celery_setup.processes import ARCHIVE_QUEUE, URGENT_QUEUE

log = structlog.get_logger(__name__)

PAGE = 500  # messages of about 1 KB


def waiting_messages(
    url: str, key_prefix: str = "archiver:", authorities: Path | None = None
) -> Mapping[str, bool]:
    """Return the asset ids of the messages in the archive queues, and whether one of each is in the urgent queue.

    Messages that a worker has reserved are left out. Empty, with a warning in the log, when the broker cannot be read:
    a message too many is harmless. `authorities`: see `tls_options`."""
    found: dict[str, bool] = {}
    try:
        with closing(connect(url, authorities)) as client:
            for queue in (ARCHIVE_QUEUE, URGENT_QUEUE):
                found |= dict.fromkeys(_asset_ids(client, key_prefix + queue), queue == URGENT_QUEUE)
    except (RedisError, LedgerUnavailable) as error:
        log.warning("queues_not_read", error=type(error).__name__)
        return {}
    return found


def _asset_ids(client: Redis, key: str) -> set[str]:
    """Kombu pushes at the head and takes at the tail, so a page from the head may repeat a message and skips none."""
    ids: set[str] = set()
    start = 0
    while page := client.lrange(key, start, start + PAGE - 1):
        ids |= {asset_id for message in page if (asset_id := _asset_id(message)) is not None}
        start += PAGE
    return ids


def _asset_id(message: str | bytes) -> str | None:
    """Return the asset of one message (Celery's protocol 2 in kombu's envelope); None for any other."""
    try:
        body: Any = json.loads(base64.b64decode(json.loads(message)["body"]))
        found = body[1]["asset_id"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return found if isinstance(found, str) else None
