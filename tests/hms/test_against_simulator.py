"""The client against the simulator's own process: an API written by others from the same documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr

from archiver.hms.auth import FixedToken, ManagementToken, TokenProvider
from archiver.hms.client import HmsClient
from archiver.hms.errors import (
    HmsError,
    HmsInvalidResponse,
    HmsNotFound,
    HmsRateLimited,
    HmsUnauthorized,
    HmsUnavailable,
)
from archiver.hms.webhooks import parse_event
from tests.hms.fake_time import FakeTime
from tests.simulator.process import Simulator, running_simulator


@pytest.fixture(scope="module")
def demo() -> Iterator[Simulator]:
    with running_simulator("demo") as simulator:
        yield simulator


@pytest.fixture
def simulator(demo: Simulator) -> Iterator[Simulator]:
    yield demo
    demo.clear_faults()
    demo.clear_requests()
    demo.skew_api_clock(timedelta(0))


def _client(simulator: Simulator, tokens: TokenProvider | None = None) -> HmsClient:
    provider = tokens or ManagementToken(simulator.access_key, SecretStr(simulator.secret))
    time = FakeTime()
    return HmsClient(simulator.api_url, provider, monotonic=time.monotonic, sleep=time.sleep)


@pytest.mark.parametrize("last_page", ["short", "last-null", "last-empty", "data-null"])
@pytest.mark.parametrize("count", [200, 201])
def test_every_asset_is_seen_however_the_listing_ends(last_page: str, count: int) -> None:
    with (
        running_simulator("many", count=count, last_page=last_page, order="shuffled") as simulator,
        _client(simulator) as client,
    ):
        ids = [asset.id for page in client.pages() for asset in page.assets]

        assert len(ids) == len(set(ids)) == count
        assert 2 <= len(simulator.requests(on="api")) <= 4


def test_every_type_is_understood_and_kept_as_it_came(simulator: Simulator) -> None:
    with _client(simulator) as client:
        assets = [asset for page in client.pages() for asset in page.assets]

        truth = {row["id"]: row for row in simulator.get("/recording-assets", limit=100).json()["data"]}
        assert {asset.id: asset.raw for asset in assets} == truth
        assert all(asset.created_at is not None and asset.type and asset.status for asset in assets)
        assert client.asset(assets[0].id).raw == truth[assets[0].id]


def test_filters_are_the_apis(simulator: Simulator) -> None:
    with _client(simulator) as client:
        failed = [asset for page in client.pages(status="failed") for asset in page.assets]

    assert [asset.status for asset in failed] == ["failed"]


def test_a_signed_url_opens_the_file(simulator: Simulator) -> None:
    asset_id = simulator.asset("chat")["id"]

    with _client(simulator) as client:
        signed = client.sign(asset_id, timedelta(minutes=5))

    assert signed.expiry_seconds == 300
    got = simulator.control.get(signed.url.get_secret_value())
    assert got.status_code == 200
    assert got.text.startswith("SenderPeerID,")


def test_an_asset_that_is_not_there_is_not_found(simulator: Simulator) -> None:
    with _client(simulator) as client, pytest.raises(HmsNotFound):
        client.asset("000000000000000000000000")


@pytest.mark.parametrize("hostile", ["../rooms", "a/presigned-url", "..", "%2e%2e%2f", "a?x=1", "a#b"])
def test_a_hostile_id_reaches_nothing_else(simulator: Simulator, hostile: str) -> None:
    with _client(simulator) as client, pytest.raises(HmsError):
        client.sign(hostile)


def test_a_wrong_secret_is_refused(simulator: Simulator) -> None:
    wrong = ManagementToken(simulator.access_key, SecretStr("another-secret-of-the-same-size-0123456789"))

    with _client(simulator, wrong) as client, pytest.raises(HmsUnauthorized):
        client.check()

    assert len(simulator.requests(on="api")) == 2  # the second with a fresh token


def test_a_token_that_has_expired_is_refused(simulator: Simulator) -> None:
    expired = FixedToken(SecretStr(simulator.token(iat=1_000, nbf=1_000, exp=2_000)))

    with _client(simulator, expired) as client, pytest.raises(HmsUnauthorized):
        client.check()


@pytest.mark.parametrize("skew", [timedelta(seconds=15), timedelta(minutes=5), timedelta(days=3)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_wrong_clock_of_ours_is_measured_and_keeps_no_call_from_succeeding(
    simulator: Simulator, skew: timedelta, sign: int
) -> None:
    simulator.skew_api_clock(-sign * skew)

    with _client(simulator) as client:
        client.check()
        client.check()

        measured = client.clock_skew()
    assert measured is not None
    assert abs(measured - sign * skew) < timedelta(seconds=2)
    assert len(simulator.requests(on="api")) <= 3


@pytest.mark.parametrize(
    "fault",
    ["too-many-requests", "server-error", "html", "invalid-json", "empty", "cut", "short-body", "reset"],
)
def test_a_passing_fault_passes(simulator: Simulator, fault: str) -> None:
    simulator.fault(fault, on="api", times=2)

    with _client(simulator) as client:
        assert sum(len(page.assets) for page in client.pages()) > 10

    assert [asked["fired"] for asked in simulator.faults()] == [2]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("too-many-requests", HmsRateLimited),
        ("server-error", HmsUnavailable),
        ("html", HmsInvalidResponse),
        ("gone", HmsNotFound),
    ],
)
def test_a_fault_that_stays_is_told(simulator: Simulator, fault: str, error: type[HmsError]) -> None:
    simulator.fault(fault, on="api", times=None)

    with _client(simulator) as client, pytest.raises(HmsError) as raised:
        client.check()

    assert type(raised.value) is error


def test_one_refusal_of_a_good_token_costs_one_more_request(simulator: Simulator) -> None:
    simulator.fault("token-refused", on="api")

    with _client(simulator) as client:
        client.check()

    assert len(simulator.requests(on="api")) == 2


def test_a_webhook_names_the_asset_and_opens_its_thumbnails(simulator: Simulator) -> None:
    asset = simulator.asset("vod-ts")
    events = [parse_event(json.dumps(webhook["event"])) for webhook in simulator.webhooks()]

    [event] = [event for event in events if asset["id"] in event.asset_ids]

    assert event.type == "hls.recording.success"
    assert len(event.thumbnails) > 0
    with _client(simulator) as client:
        assert [thumbnail.location for thumbnail in event.thumbnails] == list(
            client.asset(asset["id"]).thumbnails
        )
    picture = simulator.control.get(event.thumbnails[0].url.get_secret_value())
    assert picture.content.startswith(b"\x89PNG")
