"""Compare clocks. Pure.

The ledger's clock times everything, and deadlines follow from the API's. While they disagree it is not known which
deadlines are past, and no asset is called lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far two correct clocks may differ: network, rounding, a clock that is being slewed."""


def clocks_agree(ledger: datetime, api: datetime | None, stores: Iterable[datetime | None] = ()) -> bool:
    """Return whether every clock that could be read shows the ledger's time; False when no other could be read.

    `stores`: the modification times of objects written just now. None: that clock could not be read.
    """
    others = [other for other in (api, *stores) if other is not None]
    return bool(others) and all(abs(other - ledger) <= CLOCK_TOLERANCE for other in others)
