from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from archiver.core.clocks import clocks_agree
from tests.core.examples import NOW

NEAR, FAR, DAY = timedelta(minutes=5), timedelta(minutes=5, seconds=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("api", "stores", "agree"),
    [
        (NOW, [], True),
        (NOW, [NOW, NOW], True),
        (NOW + NEAR, [NOW - NEAR], True),
        (NOW - FAR, [], False),
        (NOW + FAR, [NOW], False),
        (NOW, [NOW, NOW + DAY], False),
        (NOW - 3 * DAY, [NOW - 3 * DAY], False),
        # what cannot be read
        (None, [], False),
        (None, [None, None], False),
        (None, [NOW], True),
        (None, [None, NOW], True),
        (NOW, [None], True),
        (None, [NOW + FAR], False),
        (NOW + DAY, [None], False),
    ],
)
def test_the_ledgers_clock_is_believed_when_no_other_contradicts_and_one_confirms_it(
    api: datetime | None, stores: Sequence[datetime | None], agree: bool
) -> None:
    assert clocks_agree(NOW, api, stores) is agree
