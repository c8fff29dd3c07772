from __future__ import annotations

from datetime import timedelta

import httpx
import pytest

from tests.simulator.process import running_simulator


def test_files_are_deleted_when_their_retention_ends(client: httpx.Client) -> None:
    with running_simulator("vod") as simulator:
        simulator.shift_clock(timedelta(days=15))
        statuses = {
            asset["kind"]: client.get(simulator.signed_url(asset["id"])).status_code
            for asset in simulator.truth(checksums=False)
        }

    assert set(statuses.values()) == {404}


def test_files_are_there_until_their_retention_ends(client: httpx.Client) -> None:
    with running_simulator("minimal") as simulator:
        asset = simulator.add_asset("chat", age=timedelta(days=14, hours=23))

        assert client.get(simulator.signed_url(asset["id"])).status_code == 200
        assert not asset["files_deleted"]

        simulator.shift_clock(timedelta(hours=2))

        assert client.get(simulator.signed_url(asset["id"])).status_code == 404
        assert simulator.truth(asset["id"])[0]["files_deleted"]


def test_what_was_deleted_does_not_come_back(client: httpx.Client) -> None:
    with running_simulator("minimal") as simulator:
        url = simulator.signed_url(simulator.asset("composite")["id"])

        simulator.shift_clock(timedelta(days=16))
        simulator.shift_clock(timedelta(0))

        assert client.get(url).status_code == 404


def test_an_asset_may_arrive_too_late(client: httpx.Client) -> None:
    with running_simulator("empty") as simulator:
        asset = simulator.add_asset("composite", age=timedelta(days=20))

        assert client.get(simulator.signed_url(asset["id"])).status_code == 404


def test_the_customers_own_bucket_has_no_retention(client: httpx.Client) -> None:
    with running_simulator("demo") as simulator:
        simulator.shift_clock(timedelta(days=400))

        assert client.get(simulator.signed_url(simulator.asset("external")["id"])).status_code == 200


@pytest.mark.parametrize(("hide", "listed"), [(False, 2), (True, 0)])
def test_the_listing_keeps_what_is_gone_or_hides_it(hide: bool, listed: int) -> None:
    with running_simulator("minimal", hide_expired=hide) as simulator:
        simulator.shift_clock(timedelta(days=16))

        assert len(simulator.get("/recording-assets").json()["data"]) == listed


def test_the_period_is_a_setting(client: httpx.Client) -> None:
    with running_simulator("minimal", retention_days=1) as simulator:
        simulator.shift_clock(timedelta(days=1))

        assert client.get(simulator.signed_url(simulator.asset("chat")["id"])).status_code == 404
