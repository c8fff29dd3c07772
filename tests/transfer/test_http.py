from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from archiver.http.options import Timeouts
from archiver.http.session import Session
from archiver.http.waiting import complete
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.errors import SourceNotAllowed, SourceUnavailable
from archiver.transfer.http import Address, HttpClient, Response, stream_it
from archiver.transfer.urls import SecretUrl
from tests.transfer.builders import CANARY, Knowing, client, some_bytes, told_by
from tests.transfer.origin import Origin, Reply, Request, raw, redirect, silent_close, stall_at, until_closed

CONTENT = some_bytes(3000)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin({"/file": CONTENT, "/other": b"other"}) as running:
        yield running


@pytest.fixture
def http() -> Iterator[HttpClient]:
    made = client()
    yield made
    made.close()


def address(*origins: Origin, path: str = "/file", **headers: str) -> Address:
    """Of the first of `origins`; all of them were handed out by the API."""
    urls = [SecretUrl(f"{origin.url}{path}?sig={CANARY}") for origin in origins]
    return Address(urls[0], headers, frozenset(url.origin for url in urls))


def read(response: Response) -> bytes:
    body, piece = bytearray(), memoryview(bytearray(999))
    while count := response.readinto(piece):
        body += piece[:count]
    response.close()
    return bytes(body)


Get = Callable[[Address, Mapping[str, str]], Response]


@pytest.fixture
def get(http: HttpClient) -> Iterator[Get]:
    """Requests of one session, as an engine's."""
    session = http.session()
    yield getting(http, session)
    session.close()


def getting(http: HttpClient, session: Session) -> Get:
    return lambda address, headers: complete(http.fetch(address, headers, stream_it, session))


# -- connections: more of them in tests/http/test_reuse.py ----------------------------------------------------
def test_a_connection_is_kept_for_the_next_request_of_a_session(origin: Origin, get: Get) -> None:
    for _ in range(5):
        assert read(get(address(origin), {})) == CONTENT

    assert origin.connections == 1


def test_without_a_session_every_request_has_a_connection_of_its_own(
    origin: Origin, http: HttpClient
) -> None:
    for _ in range(3):
        assert read(http.get(address(origin), {})) == CONTENT

    assert origin.connections == 3


def fetch_range(http: HttpClient, asked: Address, start: int, end: int) -> bytes:
    headers = {"Range": f"bytes={start}-{end}"}
    return read(complete(http.fetch_range(asked, headers, (start, end, len(CONTENT)), stream_it)))


def test_ranges_whose_answers_name_them_share_a_connection(origin: Origin, http: HttpClient) -> None:
    for start in range(0, 500, 100):
        assert fetch_range(http, address(origin), start, start + 99) == CONTENT[start : start + 100]

    assert origin.connections == 1


def test_a_range_that_another_file_was_asked_for_too_goes_over_a_new_connection(http: HttpClient) -> None:
    """Its answer could be the other file's."""
    with Origin({"/file": CONTENT, "/twin": CONTENT[::-1]}) as origin:
        fetch_range(http, address(origin), 0, 99)

        assert fetch_range(http, address(origin, path="/twin"), 0, 99) == CONTENT[::-1][:100]
        assert origin.connections == 2


def test_after_close_no_connection_is_kept(origin: Origin, http: HttpClient) -> None:
    fetch_range(http, address(origin), 0, 99)

    http.close()
    http.close()

    assert fetch_range(http, address(origin), 100, 199) == CONTENT[100:200]
    assert origin.connections == 2


def test_a_connection_whose_body_was_not_read_is_not_used_again(origin: Origin, get: Get) -> None:
    origin.script([stall_at(10)])  # a body that was all there is kept from no one
    get(address(origin), {}).close()

    assert read(get(address(origin), {})) == CONTENT
    assert origin.connections == 2


def test_a_small_unwanted_body_is_read_to_keep_the_connection(origin: Origin, get: Get) -> None:
    get(address(origin, path="/missing"), {}).discard()

    read(get(address(origin), {}))

    assert origin.connections == 1


def test_a_connection_on_which_more_came_than_was_asked_for_is_not_used_again(get: Get) -> None:
    """A proxy that answers twice: the second answer would pass for that of the next request."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"

    with Origin({"/file": CONTENT}) as origin:
        origin.script([raw(answer * 2)])

        assert read(get(address(origin), {})) == b"first"
        assert read(get(address(origin), {})) == CONTENT
        assert origin.connections == 2


def test_a_connection_that_ended_while_idle_is_replaced_unseen(origin: Origin, get: Get) -> None:
    read(get(address(origin), {}))
    origin.drop_connections()

    assert read(get(address(origin), {})) == CONTENT


def test_a_connection_that_ends_as_the_request_is_sent_is_replaced_once(get: Get) -> None:
    """The race that no look at an idle connection can win: the server closes it when the request arrives."""

    def close_on_second(request: Request, reply: Reply) -> Reply:
        return Reply(raw=b"") if request.number == 1 else reply

    with Origin({"/file": CONTENT}, always=close_on_second) as origin:
        read(get(address(origin), {}))

        assert read(get(address(origin), {})) == CONTENT
        assert origin.connections == 2


def test_a_fresh_connection_that_ends_without_an_answer_is_unavailable(http: HttpClient) -> None:
    with Origin({"/file": CONTENT}, always=lambda *_: Reply(raw=b"")) as origin:
        with pytest.raises(SourceUnavailable, match="closed before"):
            http.get(address(origin), {})

        assert len(origin.requests) == 1


def test_an_idle_connection_is_not_trusted_for_long(origin: Origin) -> None:
    without_idle = client(Timeouts(idle=timedelta(0)))
    session = without_idle.session()
    get = getting(without_idle, session)
    read(get(address(origin), {}))

    read(get(address(origin), {}))

    session.close()
    assert origin.connections == 2


def test_many_threads_get_their_own_answers(origin: Origin, get: Get) -> None:
    def one(number: int) -> bool:
        start = number * 7
        response = get(address(origin), {"Range": f"bytes={start}-{start + 99}"})
        return read(response) == CONTENT[start : start + 100]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(200)))
    assert origin.connections <= 8


def test_the_read_timeout_ends_a_stall(origin: Origin, http: HttpClient) -> None:
    origin.script([stall_at(10)])
    response = http.get(address(origin), {})

    with pytest.raises(SourceUnavailable, match="less than 1024 bytes a second"):
        read(response)


def test_nobody_listening_is_unavailable(http: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = SecretUrl(f"http://127.0.0.1:{port}/file?sig={CANARY}")

    with pytest.raises(SourceUnavailable, match="connection failed") as error:
        http.get(Address(url, {}, frozenset({url.origin})), {})
    assert CANARY not in told_by(error.value)


def test_the_next_address_is_tried_when_one_does_not_answer(origin: Origin) -> None:
    policy = AddressPolicy(allow_private=True)
    several = Knowing(policy, f"storage.example:{origin.port}:127.0.0.2,127.0.0.1")
    url = SecretUrl(f"http://storage.example:{origin.port}/file")

    assert read(several.get(Address(url, {}, frozenset({url.origin})), {})) == CONTENT
    several.close()
    assert origin.requests[0].headers["host"] == f"storage.example:{origin.port}"


# -- whom we trust -------------------------------------------------------------------------------------------
def test_a_kept_private_connection_is_not_lent_to_an_asset_that_was_not_given_that_origin(
    origin: Origin, get: Get
) -> None:
    read(get(address(origin), {}))

    with pytest.raises(SourceNotAllowed, match="did not hand out"):
        get(replace(address(origin), handed_out=frozenset()), {})
    assert len(origin.requests) == 1


def test_loopback_is_refused_by_default(origin: Origin) -> None:
    strict = HttpClient(AddressPolicy())

    with pytest.raises(SourceNotAllowed, match="only https"):
        strict.get(address(origin), {})
    assert origin.connections == 0


def test_a_redirect_is_followed_and_the_final_url_known(origin: Origin, http: HttpClient) -> None:
    origin.script([redirect("other?to=1")])

    response = http.get(address(origin), {})

    assert read(response) == b"other"
    assert response.url.reveal() == f"{origin.url}/other?to=1"


def test_cookies_and_tokens_are_not_sent_along_to_another_origin(origin: Origin, http: HttpClient) -> None:
    with Origin({"/elsewhere": b"there"}) as elsewhere:
        origin.script([redirect(f"{elsewhere.url}/elsewhere")])

        response = http.get(
            address(origin, elsewhere, Cookie="secret=1", Authorization="Bearer x"), {"Range": "bytes=0-2"}
        )

        assert read(response) == b"the"
        assert "cookie" in origin.requests[0].headers
        assert "cookie" not in elsewhere.requests[0].headers
        assert "authorization" not in elsewhere.requests[0].headers
        assert elsewhere.requests[0].headers["range"] == "bytes=0-2"
        assert CANARY not in str(elsewhere.requests)


def test_only_cookies_of_the_final_origin_are_reported(origin: Origin, http: HttpClient) -> None:
    with Origin(
        {"/elsewhere": b"there"}, always=lambda _, reply: reply.header("Set-Cookie", "there=1")
    ) as elsewhere:
        away = redirect(f"{elsewhere.url}/elsewhere")
        origin.script([lambda r, p: away(r, p).header("Set-Cookie", "here=1")])

        response = http.get(address(origin, elsewhere), {})
        read(response)

        assert response.cookies == ("there=1",)


def test_cookies_set_by_a_redirect_on_the_same_origin_are_reported(origin: Origin, http: HttpClient) -> None:
    onwards = redirect("/other")
    origin.script(
        [lambda r, p: onwards(r, p).header("Set-Cookie", "a=1"), lambda _, p: p.header("Set-Cookie", "b=2")]
    )

    response = http.get(address(origin), {})
    read(response)

    assert response.cookies == ("a=1", "b=2")


# -- TLS -----------------------------------------------------------------------------------------------------
@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, Path]:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made, tmp_path / "ca.pem"


def serving(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_tls_names_the_host_while_connecting_to_the_checked_address(
    authority: tuple[trustme.CA, Path],
) -> None:
    ca, ca_file = authority
    with Origin({"/file": CONTENT}, tls=serving(ca, "storage.example")) as origin:
        names = f"storage.example:{origin.port}:127.0.0.1"
        http = Knowing(AddressPolicy(allow_private=True), names, ca_file=ca_file)
        url = SecretUrl(f"https://storage.example:{origin.port}/file")

        session = http.session()
        for _ in range(3):
            assert read(getting(http, session)(Address(url, {}, frozenset({url.origin})), {})) == CONTENT
        assert origin.connections == 1
        session.close()


def test_tls_connections_that_ended_while_idle_are_replaced(authority: tuple[trustme.CA, Path]) -> None:
    ca, ca_file = authority
    http = client(ca_file=ca_file)
    with Origin({"/file": CONTENT}, tls=serving(ca, "127.0.0.1")) as origin:
        session = http.session()
        for _ in range(3):
            origin.script([silent_close])

            assert read(getting(http, session)(address(origin), {})) == CONTENT
        session.close()


@pytest.mark.parametrize("ours", [True, False])
def test_a_certificate_of_another_name_or_authority_is_refused(
    authority: tuple[trustme.CA, Path], ours: bool
) -> None:
    ca, ca_file = authority
    http = client(ca_file=ca_file)
    tls = serving(ca, "other.example") if ours else serving(trustme.CA(), "127.0.0.1")
    with Origin({"/file": CONTENT}, tls=tls) as origin:
        with pytest.raises(SourceUnavailable, match="certificate is not accepted"):
            http.get(address(origin), {})

        assert origin.requests == []


def test_a_tls_body_without_length_must_end_properly(authority: tuple[trustme.CA, Path]) -> None:
    ca, ca_file = authority
    http = client(ca_file=ca_file)
    with Origin({"/file": CONTENT}, tls=serving(ca, "127.0.0.1")) as origin:
        origin.script([until_closed, lambda _, p: replace(p, announce=None, cut_at=2000)])

        assert read(http.get(address(origin), {})) == CONTENT
        with pytest.raises(SourceUnavailable, match="closed before the end"):
            read(http.get(address(origin), {}))
