"""How an unfinished copy is written to Redis, and read whichever version wrote it.

During a deployment workers of two versions run side by side, and a new one resumes what an old one left. So a record is
a JSON list to which fields are only ever appended: known fields are read, the rest is ignored. A record that cannot be
read counts as missing: its object, part or upload is copied again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping

from archiver.ledger.models import OpenUpload, Progress, StoredObject
from archiver.ledger.redis.values import to_json

_HEAD = "upload"  # the hash's other fields are its parts, named by their numbers


def write_object(stored: StoredObject) -> str:
    return to_json([stored.size_bytes, stored.crc32c, stored.content_type, stored.source_etag])


def read_object(path: str, record: str) -> StoredObject | None:
    match _list(record):
        case [int(size_bytes), int(crc32c), str(content_type), (str() | None) as source_etag, *_]:
            return StoredObject(path, size_bytes, crc32c, content_type, source_etag)
    return None


def write_upload(upload: OpenUpload, seal: Callable[[str], str]) -> dict[str, str]:
    """Return the fields of the upload's hash."""
    head = [seal(upload.token), upload.size_bytes, upload.part_bytes, upload.source_etag]
    return {_HEAD: to_json(head)} | {str(number): write_part(part) for number, part in upload.parts.items()}


def write_part(part: tuple[int, int, str]) -> str:
    return to_json(part)


def read_upload(fields: Mapping[str, str], unseal: Callable[[str], str | None]) -> OpenUpload | None:
    """Read an upload. None also when its token was encrypted under another key: it cannot be resumed."""
    match _list(fields.get(_HEAD, "")):
        case [str(sealed), int(size_bytes), int(part_bytes), (str() | None) as source_etag, *_]:
            token = unseal(sealed)
        case _:
            return None
    if token is None:
        return None
    parts = {
        int(name): part for name, record in fields.items() if name.isdecimal() and (part := _part(record))
    }
    return OpenUpload(token, size_bytes, part_bytes, source_etag, parts)


def read_progress(fact: Mapping[str, object]) -> Progress | None:
    names = [field.name for field in dataclasses.fields(Progress)]
    if not all(name in fact for name in names):
        return None
    return Progress(**{name: fact[name] for name in names})  # type: ignore[arg-type] # as `report` wrote them


def _part(record: str) -> tuple[int, int, str] | None:
    match _list(record):
        case [int(size_bytes), int(crc32c), str(tag), *_]:
            return size_bytes, crc32c, tag
    return None


def _list(record: str) -> object:
    try:
        return json.loads(record)
    except ValueError:
        return None
