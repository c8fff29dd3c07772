"""What the last comparison of ledger and buckets found, for `status`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FACT = "reconcile"
"""Of the ledger's fact that holds the last result, and `at`."""


@dataclass(frozen=True, slots=True)
class Said:
    """`is_problem`: a person must act. Else it is worth knowing."""

    code: str
    text: str
    is_problem: bool


def said(fact: Mapping[str, object] | None) -> Iterator[Said]:
    """What FACT has to say. Of another version's, only what is understood."""
    if not fact:
        return
    if number := _number(fact, "would_change"):
        yield Said(
            "reconcile_stopped",
            f"{number:,} assets lack a copy that the ledger calls archived, too many at once to believe. Look at the "
            "destinations; if the copies are really gone: `archiver reconcile --yes`.",
            True,
        )
    if number := _number(fact, "unreadable"):
        yield Said(
            "manifests_unreadable",
            f"{number:,} assets have a manifest that cannot be read: whether they are archived is not known.",
            True,
        )
    older = _number(fact, "missing_copies") - _number(fact, "damaged")
    if older > 0:
        yield Said(
            "copies_missing",
            f"{older:,} assets are at fewer destinations than there are now: older than one that was added.",
            False,
        )


def _number(fact: Mapping[str, object], name: str) -> int:
    value = fact.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
