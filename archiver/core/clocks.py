"""Whose time is right? Pure.

The ledger's clock times everything, the API's dates what is deleted when. While they disagree nobody knows which
deadlines are past, so nothing is given up as lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far two right clocks may differ: network, rounding, a clock that is being slewed."""


def clocks_agree(ledger: datetime, api: datetime | None, stores: Iterable[datetime | None] = ()) -> bool:
    """Whether every clock that could be read shows the ledger's time. `stores`: when a store says that something
    written just now was written. None: that clock could not be read. One other clock at least must have been: the
    ledger's alone proves nothing, and to wait costs nothing but a later verdict."""
    others = [other for other in (api, *stores) if other is not None]
    return bool(others) and all(abs(other - ledger) <= CLOCK_TOLERANCE for other in others)
