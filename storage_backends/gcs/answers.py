"""Parse the responses of Google Cloud Storage about an object or a session."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from storage_backends import crc32c as crc
from storage_backends.base import ObjectInfo, ObjectKey
from storage_backends.errors import (
    TransientStorageError,
)
from storage_backends.gcs.errors import Answer, translated
from storage_backends.gcs.settings import COLD_CLASSES
from storage_backends.operation import Operation


def bytes_held(answer: Answer) -> int:
    """Return how many bytes a session holds: `Range: bytes=0-n`, or no header when it holds none."""
    match = re.fullmatch(r"bytes=0-([0-9]+)", answer.header("range") or "")
    return int(match[1]) + 1 if match else 0


def described(key: ObjectKey, blob: Any, doing: Operation) -> ObjectInfo:
    """Describe an object of the library, which parses the response only when a property is read."""
    with translated(doing):
        size_bytes, generation, updated_at = blob.size, blob.generation, blob.updated
        crc32c, content_type, storage_class = blob.crc32c, blob.content_type, blob.storage_class
        if size_bytes is None:
            raise TransientStorageError(f"{doing}: the response does not describe an object")
    version = None if generation is None else str(generation)
    checksum, cold = crc.from_base64(crc32c), storage_class in COLD_CLASSES
    return ObjectInfo(key, size_bytes, checksum, version, content_type, updated_at, storage_class, cold)


def resource_of(answer: Answer, doing: object) -> Mapping[str, Any]:
    try:
        resource = json.loads(answer.body)
    except ValueError:
        resource = None
    if not isinstance(resource, dict) or "generation" not in resource:
        raise TransientStorageError(f"{doing}: the response does not describe an object")
    return resource


def info_of(key: ObjectKey, resource: Mapping[str, Any], doing: object) -> ObjectInfo:
    """Describe an object by the response to a request of our own."""
    try:
        size_bytes, updated = int(resource["size"]), resource.get("updated")
        updated_at = None if updated is None else datetime.fromisoformat(updated)
        crc32c = crc.from_base64(resource.get("crc32c"))
    except (KeyError, TypeError, ValueError):
        raise TransientStorageError(f"{doing}: the response does not describe an object") from None
    generation, content_type = str(resource["generation"]), resource.get("contentType")
    storage_class = resource.get("storageClass")
    cold = storage_class in COLD_CLASSES
    return ObjectInfo(key, size_bytes, crc32c, generation, content_type, updated_at, storage_class, cold)
