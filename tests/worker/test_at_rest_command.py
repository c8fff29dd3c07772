"""What `archiver verify --at-rest` says and how it ends."""

from __future__ import annotations

import pytest

from archiver.core.upkeep.at_rest import Compared, Copy, Failed, Nothing, UnderWay
from tests.core.examples import NOW
from worker.cli.at_rest import _code, _lines

WHOLE, BAD, UNKNOWN = Copy("a"), Copy("b", ("s.ts: missing",)), Copy("c", unknown="s.ts: SSE-C")


@pytest.mark.parametrize(
    ("result", "code", "said"),
    [
        (Nothing("no copy is cold"), 0, ["nothing to verify at rest: no copy is cold."]),
        (
            UnderWay("Active", 1_000, 2_000, NOW),
            3,
            ["(Active): 1,000 of 2,000 objects. Run the same command later"],
        ),
        (Failed("job x was cancelled"), 3, ["The next run begins another job"]),
        (Compared((WHOLE,), 7), 0, ["1 of 1 copies are whole, read at rest (7 objects)"]),
        (Compared((WHOLE, BAD), 7), 1, ["b: s.ts: missing", "1 of 2 copies are whole"]),
        (
            Compared((WHOLE, BAD, UNKNOWN), 7),
            1,
            ["b: s.ts: missing", "c: not verified: s.ts: SSE-C", "1 of 3"],
        ),
    ],
)
def test_each_end_is_told(result: UnderWay | Nothing | Failed | Compared, code: int, said: list[str]) -> None:
    assert _code(result) == code
    assert [part in line for part, (line, _) in zip(said, _lines(result), strict=True)] == [True] * len(said)
