"""Compare the rules by which a bucket deletes objects with what ARCHIVER_KEEP_DAYS promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from archiver.core.records import keys
from archiver.core.upkeep.terms import Terms
from storage_backends.base import StorageBackend
from storage_backends.errors import StorageError
from storage_backends.optional import ExpiryRule
from worker.doctor.check_result import CheckResult, Verdict

_MADE_AGAIN = (keys.CHECKS, keys.CATALOGUE, keys.DOCTOR)
"""What may be deleted at any time."""


def check_lifecycle(store: StorageBackend, terms: Terms) -> Iterator[CheckResult]:
    """Read the rules where the backend can (`storage_backends.optional.ReadsExpiryRules`)."""
    ask: Callable[[], Sequence[ExpiryRule] | None] | None = getattr(store, "expiry_rules", None)
    if ask is None:
        return
    try:
        rules = ask()
    except StorageError as error:
        yield CheckResult(
            store.name,
            Verdict.WARNING,
            f"its lifecycle rules could not be read: {error}",
            "Allow it to doctor, or look yourself that no rule deletes before ARCHIVER_KEEP_DAYS.",
        )
        return
    for rule in rules or ():
        if rule.prefix.startswith(_MADE_AGAIN):
            continue
        yield _compared(store, rule, terms)


def _compared(store: StorageBackend, rule: ExpiryRule, terms: Terms) -> CheckResult:
    what = f"the lifecycle rule {rule.name!r} deletes {rule.prefix or 'everything'} after {rule.days} days"
    longest = terms.longest_days
    if longest is None or rule.days < longest:
        promised = "keeps for ever" if longest is None else f"keeps for {longest} days"
        return CheckResult(
            store.name,
            Verdict.PROBLEM,
            f"{what}, and ARCHIVER_KEEP_DAYS {promised}: archived assets would be deleted",
            "Lengthen or remove the rule, or shorten ARCHIVER_KEEP_DAYS.",
        )
    if not rule.prefix or rule.prefix.startswith(keys.ENDS):
        return CheckResult(
            store.name,
            Verdict.WARNING,
            f"{what}, tombstones and end records among it",
            f"Limit it to recordings/ and {keys.MANIFESTS}: {keys.ENDS} and {keys.MARKER} must stay.",
        )
    return CheckResult(store.name, Verdict.OK, f"{what}, as ARCHIVER_KEEP_DAYS allows")
