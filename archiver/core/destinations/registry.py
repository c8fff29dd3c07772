"""Remember each destination in the ledger, for as long as the ledger is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from archiver.hms.models import parse_time
from archiver.ledger.base import Facts

PREFIX = "destination:"
"""Of the names of the ledger's facts, one for each destination."""
INTENDED = "destination-intended:"
"""Of the facts that name the marker that is about to be written."""


@dataclass(frozen=True, slots=True)
class Registered:
    """`id`: that of its marker; None while it was not identified yet. `began_empty`: it held nothing at `created`, when
    it was added or adopted. `filling`: what it lacks for that reason is being copied. `removed`: no longer configured.
    """

    id: str | None
    created: datetime | None = None
    began_empty: bool = False
    filling: bool = False
    removed: bool = False


class Registry:
    """Every method raises LedgerError."""

    def __init__(self, ledger: Facts, workspace: str | None) -> None:
        self._ledger = ledger
        self._workspace = workspace

    def names(self) -> list[str]:
        return [key.removeprefix(PREFIX) for key in self._ledger.recall_all(PREFIX)]

    def recall(self, name: str) -> Registered | None:
        fact = self._ledger.recall(PREFIX + name)
        if fact is None:
            return None
        marker_id = fact.get("id")
        return Registered(
            id=marker_id if isinstance(marker_id, str) and marker_id else None,
            created=parse_time(fact.get("created")),
            began_empty=fact.get("began_empty") is True,
            filling=fact.get("filling") is True,
            removed=fact.get("removed") is True,
        )

    def remember(self, name: str, registered: Registered) -> None:
        fact = {
            "id": registered.id,
            "created": registered.created.isoformat() if registered.created else None,
            "workspace": self._workspace,
            "began_empty": registered.began_empty,
            "filling": registered.filling,
            "removed": registered.removed,
            "schema": 1,
        }
        self._ledger.remember(PREFIX + name, fact)

    def intend(self, name: str, marker_id: str) -> None:
        """Remember which marker is about to be written: nobody may hear whether it was."""
        self._ledger.remember(INTENDED + name, {"id": marker_id})

    def intended_id(self, name: str) -> str | None:
        marker_id = (self._ledger.recall(INTENDED + name) or {}).get("id")
        return marker_id if isinstance(marker_id, str) and marker_id else None


def removed(facts: Mapping[str, Mapping[str, object]]) -> frozenset[str]:
    """Return the destinations that are no longer configured, out of the ledger's facts."""
    return frozenset(
        name.removeprefix(PREFIX)
        for name, fact in facts.items()
        if name.startswith(PREFIX) and fact.get("removed") is True
    )
