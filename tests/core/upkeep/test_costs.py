"""The formula of docs/costs.md, and its prices."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver.core.upkeep import costs
from archiver.core.upkeep.costs import SEGMENT_BYTES, Requests, dollars_a_month, requests_of

PAGE = (Path(__file__).parents[3] / "docs/costs.md").read_text()
PART = 5 * 2**20


@pytest.mark.parametrize(
    ("size_bytes", "is_tree", "requests"),
    [
        (1000, False, Requests(2, 5)),  # a transcript
        (0, False, Requests(2, 5)),
        (PART, False, Requests(2, 5)),
        (PART + 1, False, Requests(5, 5)),
        (2**30, False, Requests(208, 5)),  # an mp4 of 1 GiB
        (6000 * SEGMENT_BYTES, True, Requests(6000 + 1 + 12, 4)),  # "6,020 or so"
        (3 * SEGMENT_BYTES, True, Requests(4, 7)),
        (0, True, Requests(2, 5)),
    ],
)
def test_requests_of_one_asset(size_bytes: int, is_tree: bool, requests: Requests) -> None:
    assert requests_of(size_bytes, PART, is_tree=is_tree) == requests


def test_the_prices_are_those_of_the_page() -> None:
    assert costs.PRICES in PAGE
    assert f"| PUT, POST, LIST | ${costs.DOLLARS_PER_1000_PUT} per 1,000 |" in PAGE
    assert f"| GET, HEAD | ${costs.DOLLARS_PER_1000_GET} per 1,000 |" in PAGE
    assert f"| storage | ${costs.DOLLARS_PER_GB_MONTH} per GB and month |" in PAGE


def test_the_example_of_the_page_comes_out() -> None:
    each = requests_of(2**30, PART, is_tree=False) + requests_of(6000 * SEGMENT_BYTES, PART, is_tree=True)

    assert (each * 1000).dollars == pytest.approx(31, abs=0.5)
    assert dollars_a_month(1000 * (2**30 + 6000 * SEGMENT_BYTES)) == pytest.approx(60, abs=1)
