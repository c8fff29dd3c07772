"""How the work of an unfinished copy is written in Redis, and read whoever wrote it.

In a deploy workers of two versions run side by side, and a new one goes on with what an old one left. So a record is a
JSON list that grows at its end alone: what is known is read, what follows is left to who knows it. A record that
cannot be read is as good as none: its object, part or upload is copied again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields

from archiver.ledger.models import OpenUpload, Progress, StoredObject

_HEAD = "upload"  # the field of an upload's hash beside its parts, which are named by their numbers


def object_word(stored: StoredObject) -> str:
    return _json([stored.size_bytes, stored.crc32c, stored.content_type, stored.source_etag])


def read_object(path: str, word: str) -> StoredObject | None:
    match _list(word):
        case [int(size_bytes), int(crc32c), str(content_type), (str() | None) as source_etag, *_]:
            return StoredObject(path, size_bytes, crc32c, content_type, source_etag)
    return None


def upload_words(upload: OpenUpload, seal: Callable[[str], str]) -> dict[str, str]:
    """The fields of its hash."""
    head = [seal(upload.token), upload.size_bytes, upload.part_bytes, upload.source_etag]
    return {_HEAD: _json(head)} | {str(number): part_word(part) for number, part in upload.parts.items()}


def part_word(part: tuple[int, int, str]) -> str:
    return _json(part)


def read_upload(words: Mapping[str, str], unseal: Callable[[str], str | None]) -> OpenUpload | None:
    """None too when its token was sealed under another key: nobody can go on with it."""
    match _list(words.get(_HEAD, "")):
        case [str(sealed), int(size_bytes), int(part_bytes), (str() | None) as source_etag, *_]:
            token = unseal(sealed)
        case _:
            return None
    if token is None:
        return None
    parts = {int(name): part for name, word in words.items() if name.isdecimal() and (part := _part(word))}
    return OpenUpload(token, size_bytes, part_bytes, source_etag, parts)


def read_progress(fact: Mapping[str, object]) -> Progress | None:
    names = [field.name for field in fields(Progress)]
    if not all(name in fact for name in names):
        return None
    return Progress(**{name: fact[name] for name in names})  # type: ignore[arg-type] # as `report` wrote them


def _part(word: str) -> tuple[int, int, str] | None:
    match _list(word):
        case [int(size_bytes), int(crc32c), str(tag), *_]:
            return size_bytes, crc32c, tag
    return None


def _list(word: str) -> object:
    try:
        return json.loads(word)
    except ValueError:
        return None


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
