"""Take the lease on one asset."""

from __future__ import annotations

from collections.abc import Callable

from archiver.core.attempt.context import Attempt, Dependencies
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.destinations import breaker
from archiver.core.judging import judge
from archiver.hms.errors import HmsNotFound


def take_lease(
    deps: Dependencies, asset_id: str, holder: str, stop_requested: Callable[[], bool]
) -> Attempt | None:
    """Lease the asset; None when it is settled, leased by another worker, or unknown to ledger and API.

    Raises HmsError when the ledger does not know the asset and the API cannot tell; LedgerError.
    """
    ledger, rules = deps.ledger, deps.rules
    found = ledger.begin(asset_id, holder, rules.lease, breaker.PREFIX)
    if found.lease is None and found.row is None:
        # a message outlived the ledger, or a person named an asset that no sweep has seen
        try:
            seen = judge(deps.api.asset(asset_id), rules.scope, deps.clock())
        except HmsNotFound:
            return None
        ledger.discover([seen])
        found = ledger.begin(asset_id, holder, rules.lease, breaker.PREFIX)
    if found.lease is None or found.row is None:
        return None
    breakers = breaker.parse(found.facts, deps.clock())
    heartbeat = (
        Heartbeat(  # from the lease on: a destination alone may take longer to list than a lease lasts
            ledger,
            found.lease,
            rules.lease,
            renew_every=rules.lease_renew,
            asset_type=found.row.type,
            bytes_total=found.row.size_bytes,
            expires_at=found.row.expires_at,
            stop_requested=stop_requested,
        )
    )
    machine = breaker.machine_of(holder)
    own = breaker.opened_on(breakers, machine)
    half_open = breaker.half_open(found.facts, deps.clock())
    return Attempt(deps, heartbeat, found.row, found.has_work, breakers, own, half_open, machine)
