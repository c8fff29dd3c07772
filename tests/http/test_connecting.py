"""Names, addresses, handshakes and certificates: what goes wrong before anything is sent."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from archiver.http.errors import (
    CertificateRejected,
    CouldNotConnect,
    InvalidRequest,
)
from archiver.http.multi import Multi
from archiver.http.options import Options
from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer
from tests.http.serving import (
    CANARY,
    WAIT_SECONDS,
    Client,
    Server,
    Transport,
    closed_port,
    failure_of,
    knowing,
    listening_only,
)

NewClient = Callable[..., Client]


# -- connecting ----------------------------------------------------------------------------------------------
def at(port: int, scheme: str = "http", host: str = "127.0.0.1") -> Request:
    return Request(f"{scheme}://{host}:{port}/file?sig={CANARY}", {"X-Secret": CANARY})


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_listens(scheme: str, client: Client) -> None:
    error = failure_of(Transfer(client.session, at(closed_port(), scheme)))

    assert type(error) is CouldNotConnect
    assert "refused" in str(error)


def test_a_tls_handshake_that_does_not_end(new_client: NewClient) -> None:
    with listening_only() as port:
        error = failure_of(Transfer(new_client(connect=0.3).session, at(port, "https")))

    assert type(error) is CouldNotConnect
    assert "0.3 s" in str(error)


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad\r\n\r\n", b"", b"\x15\x03\x01\x00\x02\x02\x28"],
    ids=["HTTP", "nothing", "an alert"],
)
def test_what_answers_is_no_tls(greeting: bytes, client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(10_000)
                sock.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        error = failure_of(Transfer(client.session, at(listener.getsockname()[1], "https")))
        thread.join(WAIT_SECONDS)

    assert type(error) is CouldNotConnect


def test_a_name_that_does_not_resolve(client: Client) -> None:
    error = failure_of(Transfer(client.session, at(80, host="does-not-exist.invalid")))

    assert type(error) is CouldNotConnect
    assert "resolve" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "dict://127.0.0.1/",
        "ws://127.0.0.1/",
        "127.0.0.1/",
        "//127.0.0.1/",
        "http://[::1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a\r\nb",
        "http://127.0.0.1/\u20ac",
        "http://127.0.0.1/\0",
        "",
    ],
)
def test_an_address_that_cannot_be_requested(url: str, client: Client) -> None:
    error = failure_of(Transfer(client.session, Request(url + CANARY, {"X-Secret": CANARY})))

    assert type(error) is InvalidRequest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Cookie", "a=b\r\nHost: evil"),
        ("Cookie", "a=b\nHost: evil"),
        ("Cookie", "\u20ac"),
        ("Cookie", "a\0b"),
        ("X: y\r\nHost", "evil"),
        ("X Y", "z"),
        ("X:", "z"),
        ("", "z"),
    ],
)
def test_a_header_that_could_not_be_one_line_is_not_sent(
    name: str, value: str, over: Transport, client: Client
) -> None:
    with over.server() as server:
        assert type(client.fails(server, headers={name: value + CANARY})) is InvalidRequest
        assert type(client.fails(server, method=f"GET /{CANARY}\r\n")) is InvalidRequest

        assert server.connections == 0


def test_the_next_address_is_tried_when_one_is_dead(over: Transport, client: Client) -> None:
    """IPv6 first, where nobody listens; then a host that does not exist here; then the right one."""
    asked: list[str] = []
    with over.server() as server:
        scheme = server.url.partition(":")[0]
        names = f"storage.example:{server.port}:[::1],127.0.0.2,127.0.0.1"
        url = f"{scheme}://storage.example:{server.port}/"

        knowing(client.session, names)
        transfer = client.get(server, url=url, admits=asked.append)

        assert transfer.take_body() == b"hello"
        assert asked == ["::1", "127.0.0.2", "127.0.0.1"]
        assert server.exchanges[0].header("host") == f"storage.example:{server.port}"


def test_every_address_is_dead(client: Client) -> None:
    port = closed_port()
    session = knowing(client.session, f"storage.example:{port}:[::1],127.0.0.2,127.0.0.1")
    request = Request(f"http://storage.example:{port}/?{CANARY}")

    assert type(failure_of(Transfer(session, request))) is CouldNotConnect


class NotAdmitted(Exception):
    pass


@pytest.mark.parametrize("refused", ["::1", "127.0.0.1"])
def test_an_address_that_is_not_admitted_ends_the_transfer(
    refused: str, over: Transport, client: Client
) -> None:
    def admits(ip: str) -> None:
        if ip == refused:
            raise NotAdmitted(ip)

    with over.server() as server:
        knowing(client.session, f"storage.example:{server.port}:[::1],127.0.0.1")
        url = f"{server.url.partition(':')[0]}://storage.example:{server.port}/"

        assert type(client.fails(server, url=url, admits=admits)) is NotAdmitted
        assert server.exchanges == []


def test_addresses_that_one_session_knows_are_not_anothers(plain: Transport, new_client: NewClient) -> None:
    with plain.server() as server:
        url = f"http://does-not-exist.invalid:{server.port}/"
        one = new_client()
        knowing(one.session, f"does-not-exist.invalid:{server.port}:127.0.0.1")
        one.get(server, url=url)

        assert type(new_client().fails(server, url=url)) is CouldNotConnect


# -- certificates --------------------------------------------------------------------------------------------
@contextlib.contextmanager
def certified(authority: trustme.CA, *names: str, **options: Any) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **options).configure_cert(context)
    with Server(context) as server:
        yield server


def test_a_certificate_of_another_name(authority: tuple[trustme.CA, Path], client: Client) -> None:
    with certified(authority[0], "other.example") as server:
        error = client.fails(server)

        assert isinstance(error, CertificateRejected)
        assert "127.0.0.1" in error.reason
        assert server.exchanges == []


def test_a_certificate_of_an_unknown_authority(client: Client) -> None:
    with certified(trustme.CA(), "127.0.0.1") as server:
        error = client.fails(server)

        assert isinstance(error, CertificateRejected)
        assert "unable to get local issuer certificate" in error.reason
        assert server.exchanges == []


def test_a_certificate_that_is_its_own_authority(client: Client, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now, name = datetime.datetime.now(datetime.UTC), x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "own.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with Server(context) as server:
        error = client.fails(server)

    assert isinstance(error, CertificateRejected)
    assert "self-signed certificate" in error.reason


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"not_after": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)}, "certificate has expired"),
        ({"not_before": datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)}, "certificate is not yet valid"),
    ],
)
def test_a_certificate_at_another_time(
    options: dict[str, datetime.datetime], words: str, authority: tuple[trustme.CA, Path], client: Client
) -> None:
    if "not_after" in options:
        options = {"not_before": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), **options}
    with certified(authority[0], "127.0.0.1", **options) as server:
        error = client.fails(server)

    assert isinstance(error, CertificateRejected)
    assert error.reason.startswith(words)


def test_an_intermediate_authority_does_not_stand_for_its_root(multi: Multi, tmp_path: Path) -> None:
    root = trustme.CA()
    intermediate = root.create_child_ca()
    intermediate.cert_pem.write_to_path(str(tmp_path / "intermediate.pem"))
    session = Session(multi, Options(ca_file=tmp_path / "intermediate.pem"))
    with certified(intermediate, "127.0.0.1") as server:
        assert type(Client(session).fails(server)) is CertificateRejected
    session.close()


def test_a_file_of_authorities_that_is_not_there(multi: Multi, tmp_path: Path, tls: Transport) -> None:
    session = Session(multi, Options(ca_file=tmp_path / "none.pem"))
    with tls.server() as server:
        error = Client(session).fails(server)
    session.close()

    assert isinstance(error, CertificateRejected)
    assert "none.pem" in str(error)
