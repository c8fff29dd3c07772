"""Who decided what about an asset, when and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from archiver.hms.models import parse_time
from archiver.ledger.models import Decision, Row


def history_of(row: Row, manifests: Iterable[Mapping[str, Any]]) -> list[Decision]:
    """Return every decision that is known, oldest first: those of the ledger, and those that only a manifest or the
    asset's end still tells of, since an earlier version kept no history and a ledger may be lost."""
    found = list(row.history)
    known = {(each.what, each.by, each.why) for each in found}
    for decision in (*_acknowledged(row), *_accepted(manifests)):
        if (decision.what, decision.by, decision.why) not in known:
            known.add((decision.what, decision.by, decision.why))
            found.append(decision)
    return sorted(found, key=lambda decision: decision.at)


def _acknowledged(row: Row) -> Iterator[Decision]:
    if saved := row.acknowledged:
        yield Decision("acknowledged", saved.by, saved.why, saved.at)


def _accepted(manifests: Iterable[Mapping[str, Any]]) -> Iterator[Decision]:
    for manifest in manifests:
        saved = manifest.get("accepted")
        if isinstance(saved, Mapping) and (at := parse_time(saved.get("at"))):
            yield Decision("accepted", str(saved.get("by", "")), str(saved.get("why", "")), at)
