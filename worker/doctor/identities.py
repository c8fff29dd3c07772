"""Check that a destination is the one that the ledger knows."""

from __future__ import annotations

from archiver.core.destinations.checked import Destinations
from archiver.core.destinations.identity import Verdict as Identified
from archiver.ledger.errors import LedgerError
from storage_backends.errors import StorageError
from worker.doctor.findings import Finding, Verdict


def check_identity(name: str, identities: Destinations) -> Finding | None:
    """None when the destination or the ledger cannot be read, which other findings report. Writes nothing."""
    try:
        found = identities.look(name)
    except (StorageError, LedgerError):
        return None
    match found.verdict:
        case Identified.KNOWN:
            return Finding(name, Verdict.OK, "has the marker that the ledger knows")
        case Identified.ADOPT:
            return Finding(name, Verdict.OK, f"not marked yet; the first use marks it: {found.why}")
        case Identified.NEW:
            return Finding(
                name, Verdict.OK, f"{found.why}; the first use marks it, and what 100ms has is copied there"
            )
        case Identified.RESTORE:
            return Finding(
                name,
                Verdict.WARNING,
                f"{found.why}; the next use writes it again",
                "Exclude `.archiver-destination.json` from lifecycle rules and clean-ups.",
            )
        case Identified.WRONG:
            return Finding(
                name,
                Verdict.PROBLEM,
                f"is not the destination that the ledger knows: {found.why}. Nothing is written there",
                "Fix the mount or ARCHIVER_DESTINATIONS. If it is right as it is (a replaced disk, for example): "
                f"`archiver adopt '{name}'`. See Destinations in docs/operations.md.",
            )
