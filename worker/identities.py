"""Build the check that destinations are the ones that the ledger knows."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from archiver.core.destinations.checked import Destinations
from archiver.hms.workspace import access_key_in, workspace_of
from archiver.ledger.base import Ledger
from storage_backends.base import StorageBackend
from worker.settings import Settings

FAILURE_SHOWN_FOR = timedelta(minutes=30)
"""How long a destination's failure is shown when it is not met again; each sweep looks."""


def build_identities(
    settings: Settings, ledger: Ledger, stores: Sequence[StorageBackend], clock: Callable[[], datetime]
) -> Destinations:
    """Connects to nothing yet. `clock`: the ledger's."""
    return Destinations(
        ledger=ledger,
        stores=stores,
        workspace=workspace_in(settings),
        clock=clock,
        machine=socket.gethostname(),
        failure_lifetime=max(FAILURE_SHOWN_FOR, 3 * settings.sweep_every),
    )


def workspace_in(settings: Settings) -> str | None:
    """The 100ms workspace of the credentials; None when they do not tell."""
    access_key = settings.hms_access_key if settings.hms_secret is not None else None
    if access_key is None and settings.hms_management_token is not None:
        access_key = access_key_in(settings.hms_management_token.get_secret_value())
    return workspace_of(access_key) if access_key is not None else None
