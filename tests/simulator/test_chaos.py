from __future__ import annotations

from collections import Counter

import httpx
import pytest

from archiver.simulator.faults.behaviours import FAULTS
from archiver.simulator.faults.chaos import Chaos
from archiver.simulator.faults.plan import Faults, Match
from tests.simulator.process import Simulator, running_simulator

REQUESTS = [("storage", "GET", f"/bucket/{number}.mp4", None) for number in range(300)]


def test_a_seed_gives_the_same_faults_in_whatever_order_requests_come() -> None:
    one, other = Chaos(7, 0.3), Chaos(7, 0.3)

    drawn = {request: one.draw(*request) for request in REQUESTS}

    assert drawn == {request: other.draw(*request) for request in reversed(REQUESTS)}


def test_a_seed_gives_the_same_faults_on_another_day() -> None:
    today, tomorrow = (
        f"/bucket/beam/17edc53f88a75aa53ae65811/{date}/Rec-17edc53f88a75aa53ae65811-{epoch}.mp4"
        for date, epoch in ((20261122, 1795343403), (20261123, 1795429803))
    )
    one, other = Chaos(7, 0.5), Chaos(7, 0.5)

    drawn = [one.draw("storage", "GET", today, None) for _ in range(50)]

    assert drawn == [other.draw("storage", "GET", tomorrow, None) for _ in range(50)]
    assert len(set(map(str, drawn))) > 3


def test_another_seed_gives_other_faults() -> None:
    assert [Chaos(7, 0.3).draw(*request) for request in REQUESTS] != [
        Chaos(8, 0.3).draw(*request) for request in REQUESTS
    ]


def test_the_rate_is_about_the_share_of_requests() -> None:
    chaos = Chaos(7, 0.3)

    drawn = sum(chaos.draw(*request) is not None for request in REQUESTS)

    assert 60 <= drawn <= 120


def test_the_same_request_never_fails_three_times_in_a_row() -> None:
    chaos = Chaos(7, 1.0)

    failed = [chaos.draw(*REQUESTS[0]) is not None for _ in range(9)]

    assert failed == [True, True, False] * 3


@pytest.mark.parametrize("on", ["api", "storage", "cdn"])
def test_every_fault_that_is_drawn_exists(on: str) -> None:
    chaos, faults = Chaos(7, 1.0), Faults(None, 0.0)

    drawn = [chaos.draw(on, "GET", f"/{number}", None) for number in range(500)]

    for name, args in filter(None, drawn):
        faults.add(name, Match(), 1, 0, args)
    assert len({name for name, _ in filter(None, drawn)}) > 6
    assert {name for name, _ in filter(None, drawn)} <= FAULTS.keys()


def test_a_client_that_tries_again_under_fresh_urls_gets_everything(client: httpx.Client) -> None:
    with running_simulator("minimal", chaos_rate=0.9, chaos_seed=11) as simulator:
        for asset in simulator.truth():
            assert _with_retries(simulator, client, asset["id"], asset["objects"][0]["size"])
        faults = Counter(request["fault"] for request in simulator.requests())

    assert simulator.chaos_seed == 11
    assert sum(faults.values()) > faults[None]


def _with_retries(simulator: Simulator, client: httpx.Client, asset_id: str, size: int) -> bool:
    for _ in range(9):
        try:
            answer = client.get(simulator.signed_url(asset_id))
        except (httpx.HTTPError, ValueError, KeyError):
            continue
        if answer.status_code == 200 and len(answer.content) == size:
            return True
    return False
