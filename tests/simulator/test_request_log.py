from __future__ import annotations

import httpx
import pytest

from tests.simulator.process import Simulator


def test_the_log_counts_requests_and_bytes(simulator: Simulator, client: httpx.Client) -> None:
    asset = simulator.asset("composite")
    url = simulator.signed_url(asset["id"])
    simulator.clear_requests()

    client.get(url)
    client.get(url, headers={"Range": "bytes=0-99"})

    rows = simulator.requests(on="storage")
    assert [(row["status"], row["bytes"], row["range"]) for row in rows] == [
        (200, asset["row"]["size"], None),
        (206, 100, "bytes=0-99"),
    ]
    assert {row["asset"] for row in rows} == {asset["id"]}
    assert simulator.totals() == {"storage": {"requests": 2, "bytes": asset["row"]["size"] + 100}}


def test_a_request_that_met_a_fault_says_which(simulator: Simulator, client: httpx.Client) -> None:
    url = simulator.signed_url(simulator.asset("composite")["id"])
    simulator.fault("cut", on="storage", at_byte=0)

    with pytest.raises(httpx.RemoteProtocolError):
        client.get(url)

    (row,) = simulator.requests(on="storage")
    assert (row["fault"], row["bytes"]) == ("cut", 0)


def test_a_client_that_leaves_stops_its_answer(scratch: Simulator, client: httpx.Client) -> None:
    asset = scratch.add_asset("large", size_bytes=50 << 30)
    url = scratch.signed_url(asset["id"])

    with client.stream("GET", url) as answer:
        next(answer.iter_raw())

    while not (rows := scratch.requests(on="storage")):
        pass
    assert rows[0]["bytes"] < 1 << 30


def test_the_log_shows_no_query(simulator: Simulator, client: httpx.Client) -> None:
    client.get(simulator.signed_url(simulator.asset("composite")["id"]))
    client.get(simulator.signed_url(simulator.asset("vod-ts")["id"]))

    text = simulator.control.get("/requests").text

    assert "Signature" not in text
    assert "?" not in text
