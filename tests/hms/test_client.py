"""Each row of `CONVERSATIONS` is a conversation with a real server, told in its first column."""

from __future__ import annotations

import gzip
import json
import logging
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from archiver.hms.auth import FixedToken, ManagementToken
from archiver.hms.base import RecordingAssets, TellsTime
from archiver.hms.client import DELIVERY_PAGES, HmsClient
from archiver.hms.errors import (
    HmsBadRequest,
    HmsError,
    HmsInvalidResponse,
    HmsNotFound,
    HmsRateLimited,
    HmsUnauthorized,
    HmsUnavailable,
)
from archiver.hms.models import Page
from archiver.hms.transport import MAX_ANSWER_BYTES
from archiver.limits.rate_limit import RateLimit
from tests.hms.conftest import ACCESS_KEY, SECRET, Talk
from tests.hms.fake_time import FakeTime
from tests.hms.scripted_api import Answer, Asked, html, refuses, says

ASSET: dict[str, Any] = {
    "id": "a1",
    "job_id": "j1",
    "room_id": "r1",
    "session_id": "s1",
    "type": "room-composite",
    "status": "completed",
    "path": "s3://bucket/prefix/beam/r1/20230302/Rec-r1-1677743067.mp4",
    "size": 1234,
    "duration": 12.5,
    "created_at": "2023-03-02T07:44:27.010516042Z",
    "thumbnails": None,
    "metadata": {"num_layers": "4", "resolution": {"width": 1280, "height": 720}},
    "a_field_of_next_year": {"kept": [True]},
}
GOOD = says(ASSET)
MARK = "MARKED"  # in every secret of these tests; to be found in no message
HANG_UP = Answer(hang_up=True)
CUT = Answer(body=json.dumps(ASSET).encode(), cut_at=10)
NO_GZIP = Answer(body=b"not gzip", headers={"Content-Encoding": "gzip"})

CONVERSATIONS: list[tuple[str, Sequence[Answer], type[HmsError] | None, int]] = [
    # what happens, what the server says, how the call ends (None: with the asset), requests made
    ("all is well", [GOOD], None, 1),
    (
        "a token that was taken before is refused with 401; a fresh one is taken",
        [refuses(401), GOOD],
        None,
        2,
    ),
    ("the same with 403", [refuses(403), GOOD], None, 2),
    ("a fresh token is refused too: a person must act, at once", [refuses(401)], HmsUnauthorized, 2),
    ("401, then 403 with the fresh token", [refuses(401), refuses(403), GOOD], HmsUnauthorized, 2),
    ("a 500 passes", [refuses(500), GOOD], None, 2),
    ("502 in HTML, 503 and 504 pass", [html(502), refuses(503), refuses(504), GOOD], None, 4),
    ("a 408 passes", [refuses(408), GOOD], None, 2),
    ("a 500 stays", [refuses(500)], HmsUnavailable, 5),
    ("a fresh token is kept while a 500 passes", [refuses(401), refuses(500), GOOD], None, 3),
    ("429 without a word on when", [refuses(429), GOOD], None, 2),
    ("429 stays", [refuses(429)], HmsRateLimited, 5),
    ("the connection is closed without an answer, once", [HANG_UP, GOOD], None, 2),
    ("the connection is closed without an answer, always", [HANG_UP], HmsUnavailable, 5),
    ("the body is cut, once", [CUT, GOOD], None, 2),
    ("the body is cut, always", [CUT], HmsUnavailable, 5),
    ("an HTML page with a 200, once", [html(), GOOD], None, 2),
    ("an HTML page with a 200, always", [html()], HmsInvalidResponse, 5),
    ("JSON that ends in the middle", [Answer(body=b'{"id": "a1"')], HmsInvalidResponse, 5),
    ("JSON that is a list", [says([ASSET])], HmsInvalidResponse, 5),
    ("JSON nested too deep to read", [Answer(body=b"[" * 100_000)], HmsInvalidResponse, 5),
    ("an empty body", [Answer()], HmsInvalidResponse, 5),
    ("a 204", [Answer(204)], HmsInvalidResponse, 5),
    ("bytes that are not UTF-8", [Answer(body=b'{"id": "\xff"}')], HmsInvalidResponse, 5),
    (
        "compressed, and well",
        [Answer(body=gzip.compress(GOOD.body), headers={"Content-Encoding": "gzip"})],
        None,
        1,
    ),
    ("compression that is broken", [NO_GZIP], HmsInvalidResponse, 5),
    ("another asset than was asked for", [says({**ASSET, "id": "a2"})], HmsInvalidResponse, 5),
    ("an asset without an id", [says({**ASSET, "id": None})], HmsInvalidResponse, 5),
    (
        "a redirect is not followed",
        [Answer(302, headers={"Location": "http://127.0.0.1:9/?t=1"})],
        HmsInvalidResponse,
        5,
    ),
    ("a 400 the documentation does not name", [refuses(400), GOOD], HmsBadRequest, 1),
    ("the API knows no such asset", [refuses(404)], HmsNotFound, 1),
    ("a 404 without a body", [Answer(404)], HmsNotFound, 1),
    ("a 404 in HTML is some proxy's: no reason to give the asset up", [html(404), GOOD], None, 2),
]


@pytest.mark.parametrize(
    ("script", "error", "requests"),
    [pytest.param(*rest, id=english.replace(" ", "-")) for english, *rest in CONVERSATIONS],
)
def test_a_conversation_about_one_asset(
    talk: Talk, script: Sequence[Answer], error: type[HmsError] | None, requests: int
) -> None:
    client, server = talk(script)

    if error is None:
        assert client.asset("a1").raw == ASSET
    else:
        with pytest.raises(HmsError) as raised:
            client.asset("a1")
        assert type(raised.value) is error

    assert len(server.asked) == requests


def test_the_client_is_what_the_core_asks_for(talk: Talk) -> None:
    assets: RecordingAssets = talk([GOOD])[0]

    reported: TellsTime = talk([GOOD])[0]

    asset = assets.asset("a1")

    assert reported.api_time() is None
    assert (asset.size_bytes, asset.duration_seconds) == (1234, 12.5)
    assert asset.created_at == datetime(2023, 3, 2, 7, 44, 27, 10516, tzinfo=UTC)


# -- tokens ---------------------------------------------------------------------------------------------------
def test_each_request_carries_a_token_the_secret_has_signed(talk: Talk) -> None:
    client, server = talk([GOOD])

    client.asset("a1")

    claims = jwt.decode(server.asked[0].token, SECRET.get_secret_value(), algorithms=["HS256"])
    assert claims["access_key"] == ACCESS_KEY


def test_the_retry_after_a_refusal_carries_another_token(talk: Talk) -> None:
    client, server = talk([refuses(403), GOOD])

    client.asset("a1")

    assert server.asked[0].token != server.asked[1].token


def test_a_fixed_token_that_is_refused_is_not_sent_again(talk: Talk) -> None:
    client, server = talk([refuses(401)], FixedToken(SecretStr("a-fixed-token")))

    with pytest.raises(HmsUnauthorized, match="HMS_MANAGEMENT_TOKEN"):
        client.asset("a1")

    assert [asked.token for asked in server.asked] == ["a-fixed-token"]


@pytest.mark.parametrize("token", ["line\nbreak", "nul\0", "ümlaut-\udc80"])
def test_a_token_that_fits_in_no_header_is_told_and_not_shown(talk: Talk, token: str) -> None:
    client, _ = talk([GOOD], FixedToken(SecretStr(token)))

    with pytest.raises(HmsInvalidResponse, match="line break") as raised:
        client.asset("a1")

    assert token not in "".join(traceback.format_exception(raised.value))


# -- retries --------------------------------------------------------------------------------------------------
def test_waits_grow_and_are_jittered(talk: Talk, time: FakeTime) -> None:
    client, _ = talk([refuses(500)])

    with pytest.raises(HmsUnavailable):
        client.asset("a1")

    assert time.sleeps == [0.375, 0.75, 1.5, 3.0]  # ¾ of 0.5, 1, 2, 4 with the jitter in its middle


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_waited_for(talk: Talk, time: FakeTime, status: int) -> None:
    client, _ = talk([refuses(status, Retry_After="7"), GOOD])

    client.asset("a1")

    assert time.sleeps == [7.25]


def test_retry_after_as_a_date_is_taken_by_the_servers_clock(talk: Talk, time: FakeTime) -> None:
    there = datetime(2031, 1, 1, tzinfo=UTC)
    when = format_datetime(there + timedelta(seconds=20), usegmt=True)
    client, _ = talk([refuses(429, Date=format_datetime(there, usegmt=True), Retry_After=when), GOOD])

    client.asset("a1")

    assert time.sleeps == [20.25]


@pytest.mark.parametrize("word", ["soon", "-5", "", "1e9", "nan", "Thu, 99 Foo 2026"])
def test_an_invalid_retry_after_is_ignored(talk: Talk, time: FakeTime, word: str) -> None:
    client, _ = talk([refuses(429, Retry_After=word), GOOD])

    client.asset("a1")

    assert time.sleeps == [0.375]


@pytest.mark.parametrize(
    ("word", "reported"), [("600", timedelta(minutes=10)), ("999999999", timedelta(hours=1))]
)
def test_a_long_retry_after_is_passed_on_not_waited_for(
    talk: Talk, time: FakeTime, word: str, reported: timedelta
) -> None:
    client, server = talk([refuses(429, Retry_After=word)])

    with pytest.raises(HmsRateLimited) as raised:
        client.asset("a1")

    assert raised.value.retry_after == reported
    assert time.sleeps == []
    assert len(server.asked) == 1


def test_one_call_never_lasts_longer_than_its_total(talk: Talk, time: FakeTime) -> None:
    client, _ = talk([refuses(503, Retry_After="25")])
    began = time.monotonic()

    with pytest.raises(HmsUnavailable):
        client.asset("a1")

    assert time.monotonic() - began < 60
    assert len(time.sleeps) == 2


def test_a_server_that_never_answers_times_out(talk: Talk) -> None:
    client, _ = talk([Answer(stall=True)], read=timedelta(milliseconds=50), attempts=2)

    with pytest.raises(HmsUnavailable, match="no answer in time"):
        client.asset("a1")


def test_a_dripping_response_is_cut_off_at_the_deadline(talk: Talk, time: FakeTime) -> None:
    def slow(_: Asked) -> Answer:
        time.now_at += timedelta(seconds=61)
        return GOOD

    client, _ = talk(slow)

    with pytest.raises(HmsUnavailable, match="too slowly"):
        client.asset("a1")


def test_an_endless_answer_is_not_kept_in_memory(talk: Talk) -> None:
    client, server = talk([Answer(body=b" " * (MAX_ANSWER_BYTES + 1)), GOOD])

    client.asset("a1")

    assert len(server.asked) == 2


def test_nobody_at_the_address_is_said_with_the_host(talk: Talk, time: FakeTime) -> None:
    _, server = talk([GOOD])
    server.shutdown()
    server.socket.close()
    client = HmsClient(
        server.url,
        FixedToken(SecretStr("t")),
        monotonic=time.monotonic,
        sleep=time.sleep,
    )

    with client, pytest.raises(HmsUnavailable, match=rf"cannot connect to 127.0.0.1:{server.server_port}"):
        client.check()

    assert len(time.sleeps) == 4


def test_an_address_with_other_letters_is_asked_for_as_it_is_written_in_a_request(time: FakeTime) -> None:
    tokens = FixedToken(SecretStr("t"))
    client = HmsClient("http://bücher.invalid/ü", tokens, monotonic=time.monotonic, sleep=time.sleep)

    with client, pytest.raises(HmsUnavailable, match=r"cannot connect to xn--bcher-kva\.invalid"):
        client.check()


# -- what a message may say -----------------------------------------------------------------------------------
def test_a_refusal_says_what_was_asked_and_what_was_answered(talk: Talk) -> None:
    body = {"code": 404, "message": "asset not\nfound", "details": ["deleted", 7]}
    client, _ = talk([says(body, 404, X_Request_Id="req-9")])

    with pytest.raises(HmsNotFound) as raised:
        client.asset("a1")

    assert str(raised.value) == (
        "100ms API, GET /recording-assets/a1: answered 404 (asset not found; deleted; request id req-9)"
    )


def _echo(status: int) -> Answer:
    """An API that puts what it was sent into its errors."""
    return refuses(status, message="bad url https://x.test/p?sig=MARKED and token TOKEN-MARKED")


@pytest.mark.parametrize(
    "answer",
    [_echo(400), _echo(401), _echo(404), _echo(429), _echo(500), html(), html(404), HANG_UP, CUT, NO_GZIP],
)
def test_no_error_holds_a_query_or_a_token(
    talk: Talk, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    client, _ = talk([answer], FixedToken(SecretStr("TOKEN-MARKED")), attempts=2)

    with pytest.raises(HmsError) as raised:
        list(client.pages(room_id=MARK))

    shown = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert "MARKED" not in shown
    assert isinstance(raised.value.__context__, HmsError | None)  # no error of a request hangs on it


def test_a_redirect_is_told_by_its_host_alone(talk: Talk) -> None:
    target = {"Location": "https://login.test/?return=MARKED"}
    client, _ = talk([Answer(302, headers=target)])

    with pytest.raises(HmsInvalidResponse, match=r"redirect to login\.test") as raised:
        client.asset("a1")

    assert "MARKED" not in str(raised.value)


def test_each_retry_is_logged_as_an_event(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "archiver.hms.client")
    client, _ = talk([refuses(500), GOOD])

    client.asset("a1")

    [record] = caplog.records
    assert record.getMessage() == "hms_try_again"
    assert record.__dict__["attempt"] == 1
    assert "answered 500" in record.__dict__["reason"]


# -- asset ids ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "asset_id", ["a/b", "../../v2/rooms", "..", ".", "a?b=c", "a#b", "a b%20", "ü/🎥", "a\r\nX: y", "%2e%2e"]
)
def test_a_hostile_id_stays_one_segment_of_the_path(talk: Talk, asset_id: str) -> None:
    client, server = talk([says({**ASSET, "id": asset_id})])

    assert client.asset(asset_id).id == asset_id

    path = server.asked[0].path
    assert path.count("/") == 3
    assert path.startswith("/v2/recording-assets/")
    assert server.asked[0].query == {}
    assert "." not in path.rsplit("/", 1)[1]


def test_an_id_too_long_for_any_url_is_an_error_of_ours(talk: Talk) -> None:
    client, _ = talk([GOOD])

    with pytest.raises(HmsError) as raised:
        client.asset("x" * 100_000)

    assert len(str(raised.value)) < 500


# -- odd values -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "odd",
    [
        {"size": "12"},
        {"size": -1},
        {"size": 10**400},
        {"size": True},
        {"duration": "1e999"},
        {"duration": float("nan")},
        {"created_at": "0001-01-01T00:00:00+14:00"},
        {"created_at": 5},
        {"type": None, "status": 7},
        {"type": "hologram", "status": "pending"},
        {"path": 3, "room_id": [], "session_id": {}},
        {"thumbnails": {"a": 1}, "metadata": "none"},
        {"thumbnails": [{"url": "https://x.test/?sig=MARKED"}]},
        {"path": "s3://b/\ud800.mp4"},
        {"raw": "a field by this name", "size_bytes": 3},
    ],
)
def test_one_odd_field_does_not_hide_an_asset(talk: Talk, odd: dict[str, Any]) -> None:
    client, _ = talk([says({**ASSET, **odd})])

    asset = client.asset("a1")

    assert asset.id == "a1"
    assert "MARKED" not in repr(asset)
    assert json.dumps(asset.raw, ensure_ascii=False, allow_nan=False).encode()


# -- pages ----------------------------------------------------------------------------------------------------
def _rows(*numbers: int) -> list[dict[str, Any]]:
    return [{**ASSET, "id": f"a{number}"} for number in numbers]


def _ids(pages: Sequence[Page]) -> list[str]:
    return [asset.id for page in pages for asset in page.assets]


def _page(rows: list[dict[str, Any]] | None, last: str | None) -> Answer:
    return says({"limit": 100, "data": rows, "last": last})


FULL = _rows(*range(100))
NEXT = _rows(*range(100, 200))
PAGES: list[tuple[str, Sequence[Answer], int, int]] = [
    # what happens, what the server says, assets seen, requests made
    ("nothing at all: data null", [says({"limit": 100, "data": None, "last": None})], 0, 1),
    ("nothing at all: data empty", [says({"limit": 100, "data": [], "last": ""})], 0, 1),
    ("nothing at all: data left out", [says({"limit": 100})], 0, 1),
    ("one short page, last null", [_page(_rows(1, 2), None)], 2, 1),
    ("one short page, last empty", [_page(_rows(1, 2), "")], 2, 1),
    ("one short page, last left out", [says({"data": _rows(1, 2)})], 2, 1),
    ("a full page, last null: 100 assets exactly", [_page(FULL, None)], 100, 1),
    (
        "two full pages, then data null",
        [_page(FULL, "a99"), _page(NEXT, "a199"), _page(None, "a199")],
        200,
        3,
    ),
    (
        "a full page, then a short one",
        [_page(FULL, "a99"), _page(_rows(100), "")],
        101,
        2,
    ),
    (
        "every page names its last row, the last page too: one more request finds nothing",
        [_page(FULL, "a99"), _page(_rows(100), "a100"), _page([], "a100")],
        101,
        3,
    ),
    (
        "a filtering server gives a short page in the middle: nothing behind it is lost",
        [_page(_rows(1), "a1"), _page(_rows(2), None)],
        2,
        2,
    ),
    (
        "a filtering server gives a page without rows in the middle: nothing behind it is lost",
        [_page(FULL, "a99"), _page([], "a199"), _page(_rows(200), None)],
        101,
        3,
    ),
    (
        "pages without rows that name ever new ones end",
        [_page(FULL, "a99"), _page(None, "a199"), _page([], "a299")],
        100,
        3,
    ),
    (
        "a short page, and nothing known behind it",
        [_page(_rows(1), "a1"), refuses(404)],
        1,
        2,
    ),
    (
        "a short page, and its `last` is refused as a start",
        [_page(_rows(1), "a1"), refuses(400)],
        1,
        2,
    ),
    (
        "a short page whose `last` leads to itself, as where `start` is included",
        [_page(_rows(1), "a1")],
        2,  # seen twice, which a sweep does not mind
        2,
    ),
    (
        "after the short page the list starts over",
        [_page(FULL, "a99"), _page(_rows(100), "a100"), _page(FULL, "a99")],
        201,
        3,
    ),
    (
        "a 500 and garbage in the middle pass",
        [_page(FULL, "a99"), refuses(500), html(), _page(_rows(100), None)],
        101,
        4,
    ),
    (
        "rows without an id are counted, the others kept",
        [says({"data": [{"type": "chat"}, None, "x", {"id": 7}, *_rows(1)], "last": None})],
        1,
        1,
    ),
]


@pytest.mark.parametrize(
    ("script", "assets", "requests"),
    [pytest.param(*rest, id=english.replace(" ", "-")) for english, *rest in PAGES],
)
def test_a_walk_over_the_pages(talk: Talk, script: Sequence[Answer], assets: int, requests: int) -> None:
    client, server = talk(script)

    pages = list(client.pages())

    assert len(_ids(pages)) == assets
    assert len(server.asked) == requests


def test_pages_are_asked_for_by_the_hundred_from_the_last_row_on(talk: Talk) -> None:
    client, server = talk([says({"data": FULL, "last": "a 99&x=1"}), says({"data": None})])

    list(client.pages(room_id="r/1", session_id="s1", status="completed", start="a0"))

    filters = {"limit": "100", "room_id": "r/1", "session_id": "s1", "status": "completed"}
    assert [asked.query for asked in server.asked] == [
        {**filters, "start": "a0"},
        {**filters, "start": "a 99&x=1"},
    ]


def test_a_page_is_fetched_only_when_the_walk_gets_there(talk: Talk) -> None:
    client, server = talk([says({"data": FULL, "last": "a99"})])

    next(client.pages())

    assert len(server.asked) == 1


@pytest.mark.parametrize("lasts", [["a99"], ["a99", "a199"], ["x", "y", "z"]])
def test_a_list_that_repeats_itself_is_an_error(talk: Talk, lasts: list[str]) -> None:
    def circle(asked: Asked) -> Answer:
        start = asked.query.get("start")
        here = lasts.index(start) + 1 if start else 0
        return says({"data": FULL, "last": lasts[here % len(lasts)]})

    client, server = talk(circle)

    with pytest.raises(HmsInvalidResponse, match="came again"):
        list(client.pages())

    assert len(server.asked) == len(lasts) + 1


def test_full_by_the_servers_own_limit_counts_as_full(talk: Talk) -> None:
    client, _ = talk([says({"limit": 10, "data": _rows(*range(10)), "last": "a9"})])

    with pytest.raises(HmsInvalidResponse, match="came again"):
        list(client.pages())


@pytest.mark.parametrize(
    "body",
    [{}, {"code": 0}, {"data": {}}, {"data": "x"}, {"data": [], "last": 7}, {"data": FULL, "last": ["x"]}],
)
def test_an_invalid_page_is_never_taken_for_the_end(talk: Talk, body: object) -> None:
    client, server = talk([says(body)])

    with pytest.raises(HmsInvalidResponse):
        list(client.pages())

    assert len(server.asked) == 5


def test_invalid_rows_are_counted(talk: Talk) -> None:
    client, _ = talk([says({"data": [{"type": "chat"}, None, *_rows(1)], "last": None})])

    [page] = client.pages()

    assert page.invalid_rows == 2


def test_an_unavailable_page_after_a_short_one_is_an_error_not_the_end(talk: Talk) -> None:
    client, _ = talk([says({"data": _rows(1), "last": "a1"}), refuses(500)])

    with pytest.raises(HmsUnavailable):
        list(client.pages())


def test_a_wrong_address_of_the_api_is_suspected_when_there_is_no_list(talk: Talk) -> None:
    client, _ = talk([refuses(404)])

    with pytest.raises(HmsNotFound, match="HMS_API_URL"):
        list(client.pages())


# -- signing --------------------------------------------------------------------------------------------------
SIGNED = {"id": "a1", "path": "s3://b/k.mp4", "url": "https://cdn.test/k.mp4?sig=MARKED", "expiry": 3600}


def test_a_url_is_signed_for_as_long_as_was_asked(talk: Talk) -> None:
    client, server = talk([says(SIGNED)])

    signed = client.sign("a1", timedelta(minutes=5))

    assert signed.url.get_secret_value() == SIGNED["url"]
    assert signed.expiry_seconds == 3600
    assert server.asked[0].path == "/v2/recording-assets/a1/presigned-url"
    assert server.asked[0].query == {"presign_duration": "300"}
    assert "MARKED" not in repr(signed)


def test_every_call_returns_a_new_url(talk: Talk) -> None:
    client, server = talk([says(SIGNED), says({**SIGNED, "url": "https://cdn.test/k.mp4?sig=2"})])

    first, second = client.sign("a1"), client.sign("a1")

    assert first.url != second.url
    assert server.asked[0].query == {"presign_duration": "3600"}


@pytest.mark.parametrize("odd", [{"id": 5}, {"id": None}, {"expiry": "3600"}, {"expiry": [], "path": 5}])
def test_a_signed_url_is_taken_whatever_else_is_odd(talk: Talk, odd: dict[str, Any]) -> None:
    client, _ = talk([says({**SIGNED, **odd} if odd != {"id": 5} else {**SIGNED, "id": ""})])

    assert client.sign("a1").url.get_secret_value() == SIGNED["url"]


@pytest.mark.parametrize("odd", [{"url": None}, {"url": "  "}, {"url": {"href": "MARKED"}}, {"id": "a2"}])
def test_a_response_without_this_assets_url_is_invalid_and_not_shown(talk: Talk, odd: dict[str, Any]) -> None:
    client, server = talk([says({**SIGNED, **odd})])

    with pytest.raises(HmsInvalidResponse) as raised:
        client.sign("a1")

    assert "MARKED" not in "".join(traceback.format_exception(raised.value))
    assert len(server.asked) == 5


# -- doctor ---------------------------------------------------------------------------------------------------
def test_check_makes_one_small_request(talk: Talk) -> None:
    client, server = talk([says({"data": None})])

    client.check()

    assert [asked.query for asked in server.asked] == [{"limit": "10"}]


def test_the_clocks_are_compared_by_any_answer(talk: Talk, time: FakeTime) -> None:
    there = time.now() - timedelta(minutes=3)
    client, _ = talk([refuses(401, Date=format_datetime(there, usegmt=True))])
    assert client.clock_skew() is None

    with pytest.raises(HmsUnauthorized, match=r"clock is 1(79|80) s ahead of the API's"):
        client.check()

    skew = client.clock_skew()
    assert skew is not None
    assert abs(skew - timedelta(minutes=3)) <= timedelta(seconds=1)


def test_the_apis_time_goes_on_between_answers_also_when_our_clock_is_set(talk: Talk, time: FakeTime) -> None:
    there = time.now() - timedelta(minutes=3)
    client, _ = talk([says({"data": [], "last": None}, Date=format_datetime(there, usegmt=True))])
    assert client.api_time() is None
    client.check()

    time.sleep(60)

    reported = client.api_time()
    assert reported is not None
    assert abs(reported - there - timedelta(minutes=1)) <= timedelta(seconds=1)


def _takes_tokens_valid_at(now: datetime, date: datetime) -> Callable[[Asked], Answer]:
    """An API whose clock shows `now`, and whose answers bear `date`."""
    dated = format_datetime(date, usegmt=True)

    def answer(asked: Asked) -> Answer:
        claims = jwt.decode(asked.token, options={"verify_signature": False})
        if not claims["nbf"] <= now.timestamp() < claims["exp"]:
            return refuses(401, "token used before issued, or expired", Date=dated)
        return says({"data": [], "last": None}, Date=dated)

    return answer


@pytest.mark.parametrize(
    ("ahead", "first", "then"),
    [
        (timedelta(0), 1, 1),
        (timedelta(seconds=5), 1, 1),
        (timedelta(seconds=15), 2, 1),
        (timedelta(hours=26), 2, 1),
        (timedelta(days=-3), 2, 1),
        (timedelta(days=-20000), 2, 1),
    ],
    ids=str,
)
def test_tokens_are_dated_by_the_apis_clock_so_that_ours_may_be_wrong(
    talk: Talk, time: FakeTime, ahead: timedelta, first: int, then: int
) -> None:
    api_now = time.now()
    time.now_at += ahead
    client, server = talk(_takes_tokens_valid_at(api_now, api_now))

    client.check()
    asked_first = len(server.asked)
    client.check()

    assert (asked_first, len(server.asked) - asked_first) == (first, then)


def test_a_wrong_date_in_the_answers_does_not_date_tokens_when_our_own_clock_is_taken(
    talk: Talk, time: FakeTime
) -> None:
    wrong = time.now() - timedelta(days=3)
    refused_once = iter([refuses(401, Date=format_datetime(wrong, usegmt=True))])
    api = _takes_tokens_valid_at(time.now(), wrong)
    client, server = talk(lambda asked: next(refused_once, None) or api(asked))

    client.check()
    assert len(server.asked) == 3  # ours, by the wrong Date, by our own clock
    client.check()

    assert len(server.asked) == 4


def test_wrong_credentials_on_a_machine_with_a_wrong_clock_are_refused_in_the_end(
    talk: Talk, time: FakeTime
) -> None:
    client, server = talk([refuses(401, Date=format_datetime(time.now() - timedelta(days=1), usegmt=True))])

    with pytest.raises(HmsUnauthorized, match="HMS_SECRET"):
        client.check()

    assert len(server.asked) == 3


def test_refused_credentials_are_told_as_such_with_what_to_look_at(talk: Talk) -> None:
    client, _ = talk([refuses(403, Date="whenever")])

    with pytest.raises(HmsUnauthorized) as raised:
        client.check()

    for words in (
        "answered 403",
        "refuses the access key, the secret or the token",
        *("HMS_ACCESS_KEY", "HMS_SECRET", "HMS_MANAGEMENT_TOKEN", "dashboard"),
        "check this machine's clock",
    ):
        assert words in str(raised.value)


def test_a_right_clock_is_not_blamed(talk: Talk, time: FakeTime) -> None:
    client, _ = talk([refuses(401, Date=format_datetime(time.now(), usegmt=True))])

    with pytest.raises(HmsUnauthorized) as raised:
        client.check()

    assert "clock" not in str(raised.value)


def test_no_proxy_stands_between_us_and_loopback(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client, _ = talk([GOOD])

    assert client.asset("a1").id == "a1"


def test_a_client_is_closed_with_its_block(time: FakeTime) -> None:
    with HmsClient("http://127.0.0.1:9/v2", ManagementToken(ACCESS_KEY, SECRET)) as client:
        pass

    with pytest.raises(RuntimeError, match="closed"):
        client.asset("a1")


# -- the history of webhooks ----------------------------------------------------------------------------------
def _deliveries(*sessions: str, more: bool = False, kind: str = "beam.recording.success") -> Answer:
    rows = [
        {
            "event_name": "reporter.webhook.delivery.failed",
            "room_id": "r1",
            "payload": {"original_event_name": kind, "event_data": {"session_id": session}},
        }
        for session in sessions
    ]
    return says({"events": rows, "pagination": {"has_next": more}})


def _failed(client: HmsClient) -> list[tuple[str | None, str | None]]:
    until = datetime(2026, 3, 2, 7, 44, 27, 999, tzinfo=UTC)
    found = client.failed_deliveries(until - timedelta(days=1), until)
    return [(event.session_id, event.room_id) for event in found]


def test_failed_deliveries_are_read_page_by_page_and_asked_for_by_time(talk: Talk) -> None:
    client, server = talk([_deliveries("s1", "s2", more=True), _deliveries("s3")])

    assert _failed(client) == [("s1", "r1"), ("s2", "r1"), ("s3", "r1")]
    assert [asked.query["page"] for asked in server.asked] == ["1", "2"]
    asked = server.asked[0].query
    assert (asked["start_time"], asked["end_time"]) == ("2026-03-01T07:44:27Z", "2026-03-02T07:44:27Z")
    assert asked["status"] == "failed"


@pytest.mark.parametrize(
    ("english", "answer", "found"),
    [
        ("no deliveries", says({"events": None}), []),
        (
            "a page that says there are more and has none",
            says({"events": [], "pagination": {"has_next": True}}),
            [],
        ),
        ("another event", _deliveries("s1", kind="peer.join.success"), []),
        ("rows that are none", says({"events": [1, None, {}, {"payload": 3}], "pagination": 7}), []),
        ("an event without data", says({"events": [{"event_name": "recording.success"}]}), [(None, None)]),
    ],
)
def test_odd_histories_are_read_as_far_as_they_go(
    talk: Talk, english: str, answer: Answer, found: list[Any]
) -> None:
    client, server = talk([answer])

    assert _failed(client) == found, english
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuses(404), HmsNotFound),
        (says({"data": []}), HmsInvalidResponse),
        (says({"events": {"a": 1}}), HmsInvalidResponse),
    ],
)
def test_a_history_that_there_is_not_is_an_error(talk: Talk, answer: Answer, error: type[HmsError]) -> None:
    client, _ = talk([answer])

    with pytest.raises(error, match="analytics/webhooks"):
        _failed(client)


def test_a_history_without_an_end_is_cut(talk: Talk) -> None:
    client, server = talk([_deliveries("s1", more=True)])

    assert len(_failed(client)) == len(server.asked) == DELIVERY_PAGES


@pytest.mark.parametrize("status", [400, 422])
def test_where_the_filter_by_name_is_refused_all_are_read_and_filtered_here(talk: Talk, status: int) -> None:
    mixed = says(
        {
            "events": [
                {"event_name": "peer.join.success", "payload": {"event_data": {"session_id": "s0"}}},
                {"event_name": "recording.success", "payload": {"event_data": {"session_id": "s1"}}},
            ],
            "pagination": {"has_next": True},
        }
    )
    client, server = talk([refuses(status), mixed, _deliveries("s2")])

    assert _failed(client) == [("s1", None), ("s2", "r1")]
    assert [asked.query["page"] for asked in server.asked] == ["1", "1", "2"]
    assert ["event_names" in asked.query for asked in server.asked] == [True, False, False]


def test_a_history_that_is_refused_without_the_filter_too_is_an_error(talk: Talk) -> None:
    client, server = talk([refuses(400)])

    with pytest.raises(HmsBadRequest, match="analytics/webhooks"):
        _failed(client)
    assert len(server.asked) == 2


# -- the limit of requests ---------------------------------------------------------------------------------------


def test_each_request_and_each_retry_waits_for_its_turn(talk: Talk, time: FakeTime) -> None:
    account: dict[str, float] = {}

    def reserve(name: str, amount: float, per_second: float) -> float:
        account[name] = max(account.get(name, 0.0), time.monotonic()) + amount / per_second
        return account[name] - time.monotonic()

    client, server = talk([refuses(500), GOOD, GOOD, GOOD])
    client._limit = RateLimit("api", lambda: 0.1, reserve, monotonic=time.monotonic)
    began = time.monotonic()

    for _ in range(3):
        client.asset("a1")

    assert len(server.asked) == 4
    assert time.monotonic() - began >= 40
