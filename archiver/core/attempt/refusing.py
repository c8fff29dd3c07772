"""Open circuit breakers for what refused an attempt."""

from __future__ import annotations

import structlog

from archiver.core.attempt.context import Dependencies
from archiver.core.destinations import breaker
from archiver.core.destinations.probing import refuses_everything
from archiver.core.errors import DestinationsFailed, DestinationUnusable, RefusedAlone
from archiver.hms.errors import HmsError, HmsUnauthorized
from archiver.transfer.errors import SourceForbidden, SourceUntrusted
from storage_backends.errors import DestinationRefuses

log = structlog.get_logger(__name__)


def trip_breakers(deps: Dependencies, asset_id: str, machine: str, error: Exception) -> Exception:
    """Open the circuit breakers of what refuses everything on `machine`.

    Return the error as it concerns the asset: in it, what refuses this asset and serves others says so.
    """
    now = deps.clock()
    if isinstance(error, HmsUnauthorized):
        if _serves_others(deps):
            return SourceForbidden(f"the API answers, but not for this asset: {error}")
        log.error("api_refuses", place=machine, reason=str(error))
        breaker.trip_on(deps.ledger, breaker.API, machine, str(error), now)
    if isinstance(error, SourceUntrusted):
        log.error("source_untrusted", asset_id=asset_id, source=error.origin, reason=str(error))
        breaker.trip(deps.ledger, error.origin, str(error), now)
    if not isinstance(error, DestinationsFailed):
        return error
    failed = dict(error.failed)
    for store in deps.destinations:
        refusal = failed.get(store.name)
        if not isinstance(refusal, DestinationRefuses) or isinstance(refusal, DestinationUnusable):
            continue  # the latter is this machine's own matter, and known already (core.destinations.checked)
        everything = refuses_everything(store, refusal, deps.ledger)
        if everything:
            log.error("destination_refuses", store=store.name, reason=str(refusal))
            breaker.trip_on(deps.ledger, store.name, machine, str(refusal), now)
        elif everything is False:
            log.error("asset_refused", asset_id=asset_id, store=store.name, reason=str(refusal))
            failed[store.name] = RefusedAlone(
                f"{refusal}; other objects are taken, so only this asset waits",
                store=store.name,
                key=refusal.key,
                operation=refusal.operation,
                status=refusal.status,
                retry_after=refusal.retry_after,
            )
    return DestinationsFailed(failed)


def _serves_others(deps: Dependencies) -> bool:
    """Return whether the API still lists assets: then a 401 or 403 is about one asset."""
    try:
        next(iter(deps.api.pages()), None)
    except HmsError:
        return False
    return True
