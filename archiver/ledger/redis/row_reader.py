"""Read rows that the scripts return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from archiver.ledger.models import Row
from archiver.ledger.redis.calls import ScriptCalls
from archiver.ledger.redis.rows import read_row


class RowReader(ScriptCalls):
    """Knows the names of destinations, of which a row keeps a digest."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._destinations: dict[str, str] = {}  # by digest, which names the same one for ever

    def _row(self, flat: Sequence[str]) -> Row:
        return read_row(flat, self._destination)

    def _destination(self, digest: str) -> str:
        if digest not in self._destinations:
            self._destinations.update(self._hash("destinations", "destinations"))
        return self._destinations.get(digest, digest)
