"""How long archived assets are kept. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from archiver.core.deadlines import is_undated
from archiver.ledger.models import Row

DEFAULT = ""
"""Stands for every type that is not named, in `as_fact`."""
FOR_EVER = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """Days by type; `default` for every other. FOR_EVER: never deleted."""

    default_days: int = FOR_EVER
    by_type: Mapping[str, int] = field(default_factory=dict)

    def days(self, asset_type: str) -> int:
        return self.by_type.get(asset_type, self.default_days)

    @property
    def shortest_days(self) -> int | None:
        """None when everything is kept for ever."""
        return min((days for days in (self.default_days, *self.by_type.values()) if days), default=None)

    @property
    def longest_days(self) -> int | None:
        """None when anything is kept for ever."""
        terms = (self.default_days, *self.by_type.values())
        return None if FOR_EVER in terms else max(terms)

    def ends_at(self, row: Row, archived_at: datetime) -> datetime | None:
        """Return when the asset's term ends: counted from the later of when it was created and archived. None for one
        that is kept for ever, or has no date that can be believed."""
        days = self.days(row.type)
        if not days or row.created_at is None or is_undated(row):
            return None
        try:
            return max(row.created_at, archived_at) + timedelta(days=days)
        except OverflowError:
            return None

    def shorter_than(self, accepted: Terms) -> Iterator[str]:
        """Say which terms are shorter than the accepted ones, a few words each."""
        for each in dict.fromkeys([DEFAULT, *self.by_type, *accepted.by_type]):
            now, before = (
                (terms.default_days if each == DEFAULT else terms.days(each)) for terms in (self, accepted)
            )
            if now and (not before or now < before):
                yield f"{each or 'all others'}: {now} days instead of {f'{before} days' if before else 'for ever'}"

    def as_fact(self) -> dict[str, object]:
        return {DEFAULT: self.default_days, **self.by_type}

    @classmethod
    def from_fact(cls, fact: object) -> Terms:
        """Read what `as_fact` wrote; FOR_EVER for what cannot be read."""
        known = {
            str(name): days
            for name, days in (fact.items() if isinstance(fact, Mapping) else ())
            if isinstance(days, int) and days >= 0
        }
        return cls(known.pop(DEFAULT, FOR_EVER), known)


def latest_archived_at(row: Row) -> datetime:
    """Return when an asset in the ledger was archived at the latest, for one whose manifest is gone: a rebuilt ledger
    dates it by the rebuild, and nothing is archived long after 100ms has deleted it."""
    return row.changed_at if is_undated(row) else min(row.changed_at, row.expires_at + timedelta(days=1))
