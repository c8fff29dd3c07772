"""libcurl's defaults are not ours."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from archiver.http.errors import CertificateRejected
from archiver.http.multi import Multi
from archiver.http.options import Options
from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer
from tests.http.serving import Client, Server, Transport, answer, closed_port, run, says

NewClient = Callable[..., Client]


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_not_used(
    name: str, over: Transport, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    with over.server() as server:
        assert new_client().body(server) == b"hello"


def test_a_proxy_that_is_asked_for_is_used(tls: Transport, new_client: NewClient) -> None:
    """Its own answer to CONNECT is not taken for the server's."""
    asked: list[bytes] = []
    with tls.server() as server, socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on() -> None:
            near, _ = listener.accept()
            with near, socket.create_connection(("127.0.0.1", server.port)) as far:
                asked.append(near.recv(10_000))
                near.sendall(b"HTTP/1.1 200 Connection established\r\nX-Proxy: 1\r\n\r\n")
                back = threading.Thread(target=pump, args=(far, near))
                back.start()
                pump(near, far)
                back.join()

        thread = threading.Thread(target=pass_on)
        thread.start()
        client = new_client(proxy=f"http://127.0.0.1:{listener.getsockname()[1]}")
        transfer = client.get(server, alone=True)
        thread.join(20)

    assert transfer.take_body() == b"hello"
    assert transfer.head is not None
    assert transfer.head.headers.get("x-proxy") is None
    assert asked[0].startswith(b"CONNECT 127.0.0.1:")
    assert b"canary" not in asked[0]


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b",
        "/a/./b",
        "//a//b",
        "/%2e%2E/b",
        "/..",
        "/a%2Fb",
        "/a|b{c}[d]^`\"<>'\\e",
        "/~a!$&'()*+,;=:@",
        "/a?b=c?d&e=/../f",
        "/a?",
        "/?b",
    ],
)
def test_the_path_arrives_as_it_was_given(path: str, plain: Transport, client: Client) -> None:
    with plain.server() as server:
        client.get(server, url=server.url + path)

        assert server.exchanges[0].line == f"GET {path} HTTP/1.1"


def test_a_fragment_is_not_sent(plain: Transport, client: Client) -> None:
    with plain.server() as server:
        client.get(server, url=f"{server.url}/a?b#secret")

        assert server.exchanges[0].line == "GET /a?b HTTP/1.1"


def test_ssl_cert_file_is_not_obeyed_unless_it_is_our_option(
    multi: Multi, tls: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with tls.server() as server:
        for environment, ours, trusted in ((tls.ca_file, other, False), (other, tls.ca_file, True)):
            monkeypatch.setenv("SSL_CERT_FILE", str(environment))
            monkeypatch.setenv("CURL_CA_BUNDLE", str(environment))
            session = Session(multi, Options(ca_file=ours))
            if trusted:
                assert Client(session).body(server) == b"hello"
            else:
                assert type(Client(session).fails(server)) is CertificateRejected
            session.close()


def test_netrc_is_ignored(
    plain: Transport, new_client: NewClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text(
        "machine 127.0.0.1 login me password canary\ndefault login me password canary\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with plain.server() as server:
        new_client().get(server)

        assert server.exchanges[0].header("authorization") is None


def test_cookies_are_neither_kept_nor_sent(over: Transport, client: Client) -> None:
    with over.server(says(answer(b"", "Set-Cookie: a=b; Path=/"))) as server:
        client.get(server)
        client.get(server)

        assert server.exchanges[1].header("cookie") is None


def test_redirects_are_answers(over: Transport, client: Client) -> None:
    with over.server(says(answer(b"", "Location: /other", status="302 Found"))) as server:
        transfer = client.get(server)

        assert transfer.status == 302
        assert transfer.head is not None
        assert transfer.head.headers.get("location") == "/other"
        assert len(server.exchanges) == 1


def test_a_large_body_is_sent_at_once(over: Transport, client: Client) -> None:
    """Without `Expect: 100-continue`, which costs a round trip, or a second where it is not understood."""
    body = bytes(10 * 2**20)
    with over.server() as server:
        client.get(server, method="PUT", body=body)

        put = server.exchanges[0]
        assert put.line.startswith("PUT ")
        assert put.header("expect") is None
        assert put.header("content-length") == str(len(body))
        assert put.header("content-type") is None
        assert put.header("transfer-encoding") is None
        assert put.body == body


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_a_request_without_body_says_so(method: str, plain: Transport, client: Client) -> None:
    with plain.server() as server:
        client.get(server, method=method)

        assert server.exchanges[0].line.startswith(f"{method} ")
        assert server.exchanges[0].header("content-length") == "0"


def test_one_handle_does_all_methods_in_turn(plain: Transport, client: Client) -> None:
    """It is used again for each, and keeps nothing of the one before."""
    with plain.server() as server:
        for method, body in [("PUT", b"abc"), ("GET", None), ("HEAD", None), ("POST", b"d"), ("GET", None)]:
            client.get(server, method=method, body=body, headers={"Content-Type": "x/y"} if body else {})

        assert [(exchange.line.split(" ")[0], exchange.body) for exchange in server.exchanges] == [
            ("PUT", b"abc"),
            ("GET", b""),
            ("HEAD", b""),
            ("POST", b"d"),
            ("GET", b""),
        ]
        for exchange in server.exchanges:
            assert (exchange.header("content-type") == "x/y") == (exchange.body != b"")


def test_one_handle_asks_for_any_path_in_turn(plain: Transport, client: Client) -> None:
    paths = ["/a", "/%2e", "/b", "/c%2F", "/"]
    with plain.server() as server:
        for path in paths:
            client.get(server, path)

        asked = [exchange.line.split(" ")[1].partition("?")[0] for exchange in server.exchanges]
        assert asked == paths


def test_headers_of_one_request_never_go_with_the_next(plain: Transport, client: Client) -> None:
    with plain.server() as server, plain.server() as other:
        client.get(server, headers={"Authorization": "Bearer canary"})
        run(Transfer(client.session, Request(f"{other.url}/bare")))

        assert other.exchanges[0].header("authorization") is None
        assert other.exchanges[0].header("x-secret") is None


@pytest.mark.parametrize("value", ["", " ", "x", " x ", "x\ty", "caf\xe9", "a;b=c, d"])
def test_a_header_arrives_as_it_was_given(value: str, plain: Transport, client: Client) -> None:
    with plain.server() as server:
        client.get(server, headers={"X-Meta": value})

        assert server.exchanges[0].header("x-meta") == value.strip()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_host_header_names_host_and_port(host: str, client: Client) -> None:
    with Server(host=host) as server:
        client.get(server)

        assert server.exchanges[0].header("host") == server.url.removeprefix("http://")


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_the_host_header_names_no_usual_port(scheme: str, port: int, multi: Multi, plain: Transport) -> None:
    """Through a proxy, since no test may listen at those ports."""
    with plain.server() as server:
        session = Session(multi, Options(proxy=server.url))
        client = Client(session)
        if scheme == "http":
            client.get(server, url="http://storage.example/")
            assert server.exchanges[0].header("host") == "storage.example"
        else:
            client.fails(server, url="https://storage.example/")
            assert server.exchanges[0].line == f"CONNECT storage.example:{port} HTTP/1.1"
        session.close()


def test_the_user_agent_is_ours(plain: Transport, client: Client, new_client: NewClient) -> None:
    with plain.server() as server:
        client.get(server)
        new_client(user_agent="another/1.0").get(server)

        assert [exchange.header("user-agent") for exchange in server.exchanges] == [
            "recording-archiver",
            "another/1.0",
        ]
        assert server.exchanges[0].header("accept-encoding") is None


def test_http_2_is_not_offered(authority: tuple[trustme.CA, Path], client: Client) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority[0].issue_cert("127.0.0.1").configure_cert(context)
    with Server(context) as server:
        assert client.body(server) == b"hello"
        assert server.exchanges[0].line.endswith("HTTP/1.1")
