"""Copies inside the service: by rewrites, several of a large object.

https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from storage_backends.base import ObjectKey, ObjectSpec
from storage_backends.gcs.bucket import ONCE, Bucket
from storage_backends.operation import Operation
from storage_backends.optional import Place


def rewritten(
    bucket: Bucket,
    place: Place,
    key: ObjectKey,
    spec: ObjectSpec,
    doing: Operation,
    between: Callable[[], None],
) -> None:
    """Copy `key` of `place` to the key of `spec`, calling `between` before each request."""
    token: str | None = None
    source = bucket.connected().bucket(place.bucket).blob(place.prefix + key)
    new = bucket.new(spec, secrets.token_hex(16))

    def rewrite() -> str | None:
        found: str | None = new.rewrite(source, token=token, **ONCE)[0]
        return found

    between()
    token = bucket.retry(doing, rewrite)
    while token is not None:
        between()
        token = bucket.retry(doing, rewrite)
