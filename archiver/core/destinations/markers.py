"""The marker object of a destination, `.archiver-destination.json`: a random id, and whose archive it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from archiver.core.records import keys
from archiver.hms.models import parse_time
from archiver.transfer.checksums import crc32c
from storage_backends.base import ObjectSpec, StorageBackend
from storage_backends.errors import ObjectChanged, ObjectExists, ObjectMissing, TransientStorageError

MAX_MARKER_BYTES = 64 * 1024  # one has some 300
MOST_WORKSPACES = 50  # named in one marker: a new one for each access key that was ever used
SCHEMA = "archiver.destination/1"


@dataclass(frozen=True, slots=True)
class Marker:
    """`workspaces`: the 100ms workspaces archived here, as `hms.workspace` names them; empty when none was known.
    `began_empty`: nothing was archived here at `created`, elsewhere perhaps."""

    id: str
    created: datetime | None
    workspaces: tuple[str, ...] = ()
    began_empty: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)  # what a newer version wrote there as well

    def to_bytes(self) -> bytes:
        known = {
            "schema": SCHEMA,
            "id": self.id,
            "created": self.created.isoformat() if self.created else None,
            "workspaces": list(self.workspaces),
            "began_empty": self.began_empty,
        }
        return json.dumps({**self.others, **known}, indent=1).encode()

    def with_workspace(self, workspace: str) -> Marker:
        """Return the marker with one more workspace, the latest MOST_WORKSPACES of them."""
        kept = tuple(one for one in self.workspaces if one != workspace)[-MOST_WORKSPACES + 1 :]
        return Marker(self.id, self.created, (*kept, workspace), self.began_empty, self.others)


class NoMarker(Enum):
    """Why there is no marker."""

    ABSENT = "there is no marker"
    UNREADABLE = "its marker cannot be understood"


def parse_marker(data: bytes) -> Marker | NoMarker:
    """Parse a marker of any version; only its id is required."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        return NoMarker.UNREADABLE
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str) or not raw["id"]:
        return NoMarker.UNREADABLE
    workspaces = raw.get("workspaces")
    known = ("schema", "id", "created", "workspaces", "began_empty")
    return Marker(
        id=raw["id"],
        created=parse_time(raw.get("created")),
        workspaces=_texts(workspaces) if isinstance(workspaces, list) else (),
        began_empty=raw.get("began_empty") is True,
        others={name: value for name, value in raw.items() if name not in known},
    )


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str))[-MOST_WORKSPACES:]


def read_marker(store: StorageBackend) -> Marker | NoMarker:
    """Raises StorageError."""
    try:
        return parse_marker(store.read(keys.MARKER, 0, MAX_MARKER_BYTES))
    except ObjectMissing:
        return NoMarker.ABSENT


def write_marker(store: StorageBackend, marker: Marker, *, replace: bool) -> Marker:
    """Write `marker` and return the one that is there afterwards: another process may have been faster.

    Raises StorageError.
    """
    data = marker.to_bytes()
    if_absent = not replace and store.limits.conditional_create
    spec = ObjectSpec(keys.MARKER, "application/json", len(data), if_absent=if_absent)
    with suppress(ObjectExists, ObjectChanged):
        store.put(spec, data, crc32c(data))
    found = read_marker(store)
    if not isinstance(found, Marker):
        raise TransientStorageError(
            f"{store.name}/{keys.MARKER}: what was written is not what is read back",
            store=store.name,
            key=keys.MARKER,
            operation="put",
        )
    return found
