"""Check that a destination is the one that the ledger knows."""

from __future__ import annotations

from archiver.core.destinations.checked import Destinations
from archiver.core.destinations.identity import IdentityVerdict
from archiver.ledger.errors import LedgerError
from storage_backends.errors import StorageError
from worker.doctor.check_result import CheckResult, Verdict


def check_identity(name: str, identities: Destinations) -> CheckResult | None:
    """None when the destination or the ledger cannot be read, which other checks report. Writes nothing."""
    try:
        found = identities.look(name)
    except (StorageError, LedgerError):
        return None
    match found.verdict:
        case IdentityVerdict.KNOWN:
            return CheckResult(name, Verdict.OK, "has the marker that the ledger knows")
        case IdentityVerdict.ADOPT:
            return CheckResult(name, Verdict.OK, f"not marked yet; the first use marks it: {found.why}")
        case IdentityVerdict.NEW:
            return CheckResult(
                name, Verdict.OK, f"{found.why}; the first use marks it, and what 100ms has is copied there"
            )
        case IdentityVerdict.RESTORE:
            return CheckResult(
                name,
                Verdict.WARNING,
                f"{found.why}; the next use writes it again",
                "Exclude `.archiver-destination.json` from lifecycle rules and clean-ups.",
            )
        case IdentityVerdict.WRONG:
            return CheckResult(
                name,
                Verdict.PROBLEM,
                f"is not the destination that the ledger knows: {found.why}. Nothing is written there",
                "Fix the mount or ARCHIVER_DESTINATIONS. If it is right as it is (a replaced disk, for example): "
                f"`archiver adopt '{name}'`. See Destinations in docs/operations.md.",
            )
