"""Check of one destination: write, read back, delete, conditional write, unfinished uploads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from archiver.core.clocks import CLOCK_TOLERANCE
from archiver.core.destinations.probing import Probe, probe, tell_time
from archiver.core.records.keys import RECORDS
from archiver.ledger.base import Facts
from archiver.ledger.errors import LedgerError
from storage_backends.base import StorageBackend
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    DestinationFull,
    StorageError,
    TransientStorageError,
)
from storage_backends.optional import cooling_rules_of
from worker.doctor.check_result import CheckResult, Verdict
from worker.doctor.disk import check_free_space
from worker.doctor.rights import check_rights


def check_destination(store: StorageBackend, ledger: Facts | None = None) -> Iterator[CheckResult]:
    """Probe `store` with a small object under doctor/ and delete it. `ledger` remembers a probe that cannot be
    deleted, so that at most one a day is left."""
    found = probe(store, ledger)
    error = found.error
    if found.reads_back is False:
        what = "returned other bytes than were written"
        yield CheckResult(store.name, Verdict.PROBLEM, what, "Do not use this destination.")
    elif error is None:
        if store.name.startswith("file://"):
            yield from check_free_space(store.name, Path(store.name.removeprefix("file://")))
        yield CheckResult(store.name, Verdict.OK, _what_works(found))
        if found.creates_only is not None:
            yield _conditional_write(store, works=found.creates_only)
        yield from _clock(store, ledger)
        try:
            yield _unfinished_uploads(store)
            yield from _cold_records(store)
        except StorageError as asked:
            error = asked
    if error is not None:
        yield CheckResult(store.name, Verdict.PROBLEM, f"{type(error).__name__}: {error}", _remedy(error))
    if error is None or isinstance(error, AccessDenied):
        yield from check_rights(store)
    if found.left is not None:
        yield CheckResult(
            store.name,
            Verdict.WARNING,
            f"cannot delete {found.left}: {found.left_because}",
            "Allow deletes under doctor/. Where nothing may be deleted, at most one such probe a day is left.",
        )


def _what_works(found: Probe) -> str:
    if found.stored is None:
        return "accepts uploads; nothing was written, because nothing can be deleted here and today's probe is left"
    by = "its own CRC32C" if found.stored.crc32c is not None else "reading back (it keeps no CRC32C)"
    return f"writes and reads; objects are verified by {by}"


def _remedy(error: StorageError) -> str:
    match error:
        case DestinationFull():
            return "Disk or quota is full: free some space, or raise the quota. Nothing is saved until then."
        case BucketMissing():
            return "Create it, mount it, or fix ARCHIVER_DESTINATIONS."
        case AccessDenied():
            return "Allow write, read, list and delete here: see The bucket in docs/operations.md."
        case TransientStorageError():
            return "Check the endpoint in ARCHIVER_DESTINATIONS and the network of this machine."
        case _:
            return "Allow write, read, list, delete and abort of uploads here."


def _conditional_write(store: StorageBackend, *, works: bool) -> CheckResult:
    if works:
        return CheckResult(store.name, Verdict.OK, "refuses to overwrite when asked to (conditional write)")
    return CheckResult(
        store.name,
        Verdict.WARNING,
        "overwrites even when asked not to (no conditional write)",
        "Nothing to do: leases keep two workers apart, and a rare double commit writes the same manifest twice.",
    )


def _clock(store: StorageBackend, ledger: Facts | None) -> Iterator[CheckResult]:
    """Compare the store's clock with the ledger's: while they differ, nothing is called lost or expired."""
    if ledger is None:
        return
    with suppress(LedgerError):
        before, at, after = ledger.now(), tell_time(store, ledger), ledger.now()
        if at is not None and not before - CLOCK_TOLERANCE <= at <= after + CLOCK_TOLERANCE:
            ahead = at - (before if at < before else after)
            where = "ahead of" if ahead > timedelta(0) else "behind"
            yield CheckResult(
                store.name,
                Verdict.PROBLEM,
                f"its clock is {abs(ahead).total_seconds():,.0f} s {where} the ledger's",
                "Set the clock that is wrong (of a directory: this machine's, or its file server's) and run NTP. Until "
                "then no asset whose source is gone is called lost, and nothing expires.",
            )


def _unfinished_uploads(store: StorageBackend) -> CheckResult:
    """`removes_stale_uploads` is optional (storage_backends/optional.py)."""
    ask: Callable[[], bool | None] | None = getattr(store, "removes_stale_uploads", None)
    if ask is None:
        return CheckResult(store.name, Verdict.OK, "unfinished uploads are removed by the daily scrub")
    removes = ask()
    if removes is False:
        return CheckResult(
            store.name,
            Verdict.WARNING,
            "has no lifecycle rule for unfinished uploads, which are billed and invisible",
            "Add an AbortIncompleteMultipartUpload rule of 7 days. Until then the daily scrub aborts ours.",
        )
    detail = (
        "removes unfinished uploads itself" if removes else "does not say what becomes of unfinished uploads"
    )
    return CheckResult(store.name, Verdict.OK, detail)


def _cold_records(store: StorageBackend) -> Iterator[CheckResult]:
    """Name the bucket's rules that move records, which are read each day, to a class that must be restored first."""
    for rule in cooling_rules_of(store) or ():
        moved = [each for each in RECORDS if each.startswith(rule.prefix) or rule.prefix.startswith(each)]
        if moved:
            when = f"after {rule.days} days" if rule.days is not None else "at a date"
            yield CheckResult(
                store.name,
                Verdict.PROBLEM,
                f"its lifecycle rule {rule.name!r} moves {', '.join(moved)} to {rule.storage_class} {when}; they "
                "cannot be read then, and nothing counts as archived",
                "Limit the rule to the recordings (`recordings/`) below the destination's prefix, as "
                "deploy/policies/s3-lifecycle-cold.json does.",
            )
