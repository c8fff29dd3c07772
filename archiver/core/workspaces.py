"""Which 100ms workspaces a ledger belongs to: a second installation must not fill the first one's ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from archiver.core.errors import LedgerOfAnotherWorkspace
from archiver.hms.models import Asset
from archiver.ledger.base import Assets, Facts

FACT = "workspaces"
REFUSED_FACT = "workspace_refused"
REFUSED_FOR = timedelta(hours=6)
"""How long a refusal is shown after the last one."""


_WHAT_TO_DO = (
    "Give each workspace a Redis database, or an ARCHIVER_REDIS_PREFIX, of its own. If only the access key was "
    "replaced: `archiver adopt ledger`."
)


class Ledger(Assets, Facts, Protocol): ...


def check_workspace(ledger: Ledger, workspace: str | None, listed: Sequence[Asset]) -> None:
    """Add our `workspace` (`hms.workspace`) to those of the ledger. One that is new is of a replaced access key if the
    ledger knows any of the assets that are `listed`, and of somebody else's workspace if not: raises
    LedgerOfAnotherWorkspace then. None, an empty list, or a ledger of no workspace yet prove nothing. Idempotent.
    Raises LedgerError."""
    known = _known(ledger)
    if workspace is None or workspace in known or (known and not listed):
        return
    if known and not any(ledger.get(asset.id) for asset in listed):
        ledger.remember(REFUSED_FACT, {}, lifetime=REFUSED_FOR)
        raise LedgerOfAnotherWorkspace(
            "The ledger (ARCHIVER_REDIS_URL) belongs to another 100ms workspace: it knows none of the assets that "
            f"100ms lists for these credentials. {_WHAT_TO_DO}"
        )
    adopt_ledger(ledger, workspace)


def is_of_another(ledger: Facts, workspace: str | None) -> bool | None:
    """Whether the ledger belongs to other workspaces than ours; None while it belongs to none, or ours is not known.
    Raises LedgerError."""
    known = _known(ledger)
    return workspace not in known if known and workspace is not None else None


def require_ours(ledger: Facts, workspace: str | None) -> None:
    """Raises LedgerOfAnotherWorkspace until a sweep has listed an asset that the ledger knows; LedgerError."""
    if is_of_another(ledger, workspace):
        raise LedgerOfAnotherWorkspace(
            "The ledger (ARCHIVER_REDIS_URL) belongs to another 100ms workspace, and no sweep with these credentials "
            f"has found an asset that it knows. {_WHAT_TO_DO}"
        )


def adopt_ledger(ledger: Facts, workspace: str) -> None:
    """Add `workspace` to those of the ledger, whatever it holds. Idempotent. Raises LedgerError."""
    ledger.remember(FACT, {"ids": [*(each for each in _known(ledger) if each != workspace), workspace]})
    ledger.forget(REFUSED_FACT)


def _known(ledger: Facts) -> list[str]:
    ids = (ledger.recall(FACT) or {}).get("ids")
    return [str(each) for each in ids] if isinstance(ids, list) else []
