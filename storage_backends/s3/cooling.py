"""Lifecycle rules of a bucket that move objects to a class from which they cannot be read at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from storage_backends.optional import CoolingRule
from storage_backends.s3.bucket import COLD_CLASSES


def cooling_rules(rules: Sequence[Mapping[str, Any]], prefix: str) -> list[CoolingRule]:
    """Return those of the bucket's `rules` that reach objects under `prefix`."""
    return list(_found(rules, prefix))


def _found(rules: Sequence[Mapping[str, Any]], prefix: str) -> Iterator[CoolingRule]:
    for rule in rules:
        chosen = _prefix_of(rule)
        if rule.get("Status") != "Enabled" or not (chosen.startswith(prefix) or prefix.startswith(chosen)):
            continue
        for transition in rule.get("Transitions", []):
            if transition.get("StorageClass") in COLD_CLASSES:
                yield CoolingRule(
                    str(rule.get("ID", "without a name")),
                    chosen.removeprefix(prefix) if chosen.startswith(prefix) else "",
                    transition.get("Days"),
                    transition["StorageClass"],
                )


def _prefix_of(rule: Mapping[str, Any]) -> str:
    chosen = rule.get("Filter", {})
    return str(chosen.get("Prefix") or chosen.get("And", {}).get("Prefix") or rule.get("Prefix") or "")
