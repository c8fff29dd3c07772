"""Pages, filters, order, and the rows themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from archiver.hms.auth import ManagementToken
from archiver.hms.client import HmsClient
from archiver.hms.errors import HmsNotFound
from tests.simulator.process import Simulator, running_simulator


def _pages(simulator: Simulator, limit: int = 10, **filters: str) -> Iterator[dict[str, Any]]:
    """As the SDK walks: until a page is short, or `last` or `data` says that it is over."""
    start = ""
    for _ in range(1000):
        answer = simulator.get("/recording-assets", limit=limit, start=start, **filters)
        page: dict[str, Any] = answer.raise_for_status().json()
        yield page
        if not page["data"] or not page["last"]:
            return
        start = page["last"]
    raise AssertionError("the listing has no end")


def _ids(simulator: Simulator, limit: int = 10, **filters: str) -> list[str]:
    return [row["id"] for page in _pages(simulator, limit, **filters) for row in page["data"] or ()]


@pytest.fixture(scope="module")
def forty() -> Iterator[Simulator]:
    with running_simulator("many", count=40) as simulator:
        yield simulator


def test_ten_rows_are_a_page_when_nothing_is_said(forty: Simulator) -> None:
    page = forty.get("/recording-assets").json()

    assert page["limit"] == 10
    assert len(page["data"]) == 10
    assert page["last"] == page["data"][-1]["id"]


@pytest.mark.parametrize("limit", [10, 37, 100])
def test_every_asset_is_on_exactly_one_page(forty: Simulator, limit: int) -> None:
    ids = _ids(forty, limit)

    assert len(ids) == len(set(ids)) == 40


@pytest.mark.parametrize("limit", ["9", "101", "0", "-1", "ten"])
def test_a_limit_outside_of_10_to_100_is_refused(forty: Simulator, limit: str) -> None:
    answer = forty.get("/recording-assets", limit=limit)

    assert answer.status_code == 400
    assert answer.json()["code"] == 400


def test_a_start_that_names_no_asset_is_refused(forty: Simulator) -> None:
    assert forty.get("/recording-assets", start="nobody").status_code == 400


@pytest.mark.parametrize(
    ("ending", "last_pages"),
    [
        ("short", [(10, "id"), (0, "empty")]),
        ("last-null", [(10, "null")]),
        ("last-empty", [(10, "empty")]),
        ("data-null", [(10, "id"), ("null", "empty")]),
    ],
)
def test_the_listing_ends_in_each_documented_way(ending: str, last_pages: list[tuple[Any, str]]) -> None:
    with running_simulator("many", count=20, last_page=ending) as simulator:
        pages = list(_pages(simulator))

    def last(page: dict[str, Any]) -> str:
        return "null" if page["last"] is None else "id" if page["last"] else "empty"

    seen = [("null" if page["data"] is None else len(page["data"]), last(page)) for page in pages]
    assert seen == [(10, "id"), *last_pages]


def test_a_last_page_may_be_short_and_still_name_its_last_row() -> None:
    with running_simulator("many", count=13) as simulator:
        first, second, *_ = _pages(simulator)

    assert (len(first["data"]), len(second["data"])) == (10, 3)
    assert second["last"] == second["data"][-1]["id"]


def test_an_empty_workspace_lists_nothing() -> None:
    with running_simulator("empty") as simulator:
        page = simulator.get("/recording-assets").json()

    assert page == {"limit": 10, "data": [], "last": ""}


@pytest.mark.parametrize("order", ["newest-first", "oldest-first", "shuffled"])
def test_every_order_lists_every_asset_once_also_when_some_arrive_in_the_middle(order: str) -> None:
    with running_simulator("many", count=50, order=order) as simulator:
        walk = _pages(simulator)
        rows = next(walk)["data"]
        added = {simulator.add_asset("chat")["id"] for _ in range(3)}
        rows += [row for page in walk for row in page["data"]]
        again = _ids(simulator)

    before = [row["id"] for row in rows if row["id"] not in added]
    assert len(before) == len(set(before)) == 50
    assert set(again) == {*before, *added}


def test_the_orders_are_what_they_say() -> None:
    def created(order: str) -> list[str]:
        with running_simulator("demo", order=order) as simulator:
            return [row["created_at"] for page in _pages(simulator) for row in page["data"]]

    newest, shuffled = created("newest-first"), created("shuffled")

    assert [text[:19] for text in newest] == sorted((text[:19] for text in newest), reverse=True)
    assert [text[:19] for text in shuffled] not in (
        sorted(text[:19] for text in shuffled),
        sorted((text[:19] for text in shuffled), reverse=True),
    )


@pytest.mark.parametrize("field", ["room_id", "session_id", "status", "type"])
def test_filters_let_only_their_own_through(simulator: Simulator, field: str) -> None:
    rows = [row for page in _pages(simulator) for row in page["data"]]

    filtered = {value: _ids(simulator, **{field: value}) for value in {row[field] for row in rows}}

    assert len(filtered) > 1
    for value, ids in filtered.items():
        assert sorted(ids) == sorted(row["id"] for row in rows if row[field] == value)


def test_times_have_nanoseconds_and_numbers_may_be_strings(simulator: Simulator) -> None:
    row = simulator.asset("vod-ts")["row"]

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", row["created_at"])
    assert row["metadata"] == {"num_layers": "2", "max_width": "426", "max_height": "240"}


def test_an_asset_alone_is_the_row_of_the_listing(simulator: Simulator) -> None:
    row = simulator.get("/recording-assets", limit=100).json()["data"][0]

    assert simulator.get(f"/recording-assets/{row['id']}").json() == row


@pytest.mark.parametrize(
    "path", ["/recording-assets/nobody", "/recording-assets/nobody/presigned-url", "/nothing"]
)
def test_what_does_not_exist_is_404_in_the_apis_own_words(simulator: Simulator, path: str) -> None:
    answer = simulator.get(path)

    assert answer.status_code == 404
    assert answer.json()["code"] == 404


def test_an_id_with_slashes_can_be_asked_for_when_they_are_encoded() -> None:
    with running_simulator("empty") as simulator:
        asset = simulator.add_asset("hostile-id")

        answer = simulator.get(f"/recording-assets/{asset['id'].replace('/', '%2F')}/presigned-url")

    assert "/" in asset["id"]
    assert answer.json()["id"] == asset["id"]


def test_a_million_assets_cost_no_memory_and_can_be_found() -> None:
    with running_simulator("many", count=1_000_000) as simulator:
        page = simulator.get("/recording-assets", limit=100, start=f"5e71e5{999_900:018x}").json()
        size = simulator.control.get(simulator.signed_url(page["data"][-1]["id"])).headers["content-length"]

    assert len(page["data"]) == 99
    assert int(size) == page["data"][-1]["size"]


@pytest.mark.parametrize("peers", ["array", "object", "none"])
def test_a_session_has_peers_in_each_form_and_a_room_a_name(peers: str) -> None:
    with (
        running_simulator("minimal", session_peers=peers) as simulator,
        HmsClient(
            simulator.api_url, ManagementToken(simulator.access_key, SecretStr(simulator.secret))
        ) as client,
    ):
        row = simulator.asset("composite")["row"]
        session = client.session(row["session_id"])

        assert (session.id, session.room_id) == (row["session_id"], row["room_id"])
        assert str(client.room_name(row["room_id"])).startswith("Room ")
        if peers == "none":
            assert session.peers is None
        else:
            assert session.peers
            assert all(
                peer.id and peer.name and str(peer.user_id).startswith("user-") for peer in session.peers
            )
        with pytest.raises(HmsNotFound):
            client.session("nobody")
