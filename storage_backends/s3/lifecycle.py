"""Rules of a bucket that delete objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from storage_backends.optional import ExpiryRule


def expiry_rules(rules: Iterable[Mapping[str, Any]], prefix: str) -> list[ExpiryRule]:
    """Return the rules that delete current objects under `prefix`. One by tag or size counts: it may reach them."""
    found = []
    for rule in rules:
        expiration = rule.get("Expiration", {})
        if rule.get("Status") != "Enabled" or not {"Days", "Date"} & set(expiration):
            continue
        chosen = rule.get("Filter", {})
        wanted = str(chosen.get("Prefix", chosen.get("And", {}).get("Prefix", rule.get("Prefix", ""))))
        if not (wanted.startswith(prefix) or prefix.startswith(wanted)):
            continue
        days = expiration.get("Days")
        if days is None:  # on a date it deletes what is there, and from then on everything at once
            days = (
                0
                if expiration["Date"] <= datetime.now(UTC)
                else (expiration["Date"] - datetime.now(UTC)).days
            )
        rest = wanted.removeprefix(prefix) if wanted.startswith(prefix) else ""
        found.append(ExpiryRule(str(rule.get("ID", "without a name")), rest, int(days)))
    return found
