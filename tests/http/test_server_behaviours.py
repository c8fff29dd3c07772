"""What servers do wrong, plain and over TLS, and which error each of it is. Every request carries secrets, and no error
tells one: see `tests.http.serving.failure_of`."""

from __future__ import annotations

import contextlib
import datetime
import resource
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
    BrokenOff,
    CertificateRejected,
    CouldNotConnect,
    HttpError,
    InvalidRequest,
    TooLong,
    TooSlow,
)
from archiver.http.multi import Multi
from archiver.http.session import Options, Session
from archiver.http.transfer import Request, Transfer
from tests.http.serving import (
    CANARY,
    WAIT_SECONDS,
    Behaviour,
    Client,
    Exchange,
    Result,
    Server,
    Transport,
    answer,
    closed_port,
    failure_of,
    listening_only,
    says,
    says_and,
    tells_no_secret,
)

NewClient = Callable[..., Client]
BODY = b"x" * 5000
PUT: dict[str, Any] = {"method": "PUT", "body": bytes(20_000_000)}


def trickle(begun: bytes) -> Behaviour:
    """Something, but next to nothing."""

    def behave(exchange: Exchange) -> None:
        exchange.send(begun)
        while not exchange.server.left.wait(0.02):
            exchange.send(b"x")

    return behave


def slow_reader(exchange: Exchange) -> None:
    """It takes the body in so slowly that next to nothing moves."""
    while not exchange.server.left.wait(0.2):
        exchange.sock.recv(10)


def reset_amid_the_body(exchange: Exchange) -> None:
    exchange.sock.recv(100_000)
    exchange.reset()


def close_amid_the_body(exchange: Exchange) -> None:
    exchange.sock.recv(100_000)
    exchange.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
ENDS: list[tuple[str, Behaviour, type[HttpError]]] = [
    ("no answer", Exchange.close, BrokenOff),
    ("no answer, and no end of TLS", Exchange.cut, BrokenOff),
    ("reset before the answer", Exchange.reset, BrokenOff),
    ("closed in the head", says_and(Exchange.close, HEAD[:-2]), BrokenOff),
    ("closed after the head", says_and(Exchange.close, HEAD), BrokenOff),
    ("closed amid the body", says_and(Exchange.close, HEAD, BODY[:-1]), BrokenOff),
    ("cut amid the body", says_and(Exchange.cut, HEAD, BODY[:-1]), BrokenOff),
    ("reset amid the body", says_and(Exchange.reset, HEAD, BODY[:-1]), BrokenOff),
]
SILENCES: list[tuple[str, Behaviour]] = [
    ("silence", Exchange.stall),
    ("silence after a `continue`", says_and(Exchange.stall, b"HTTP/1.1 100 Continue\r\n\r\n")),
    ("silence in the head", says_and(Exchange.stall, HEAD[:-2])),
    ("silence after the head", says_and(Exchange.stall, HEAD)),
    ("silence amid the body", says_and(Exchange.stall, HEAD, BODY[:10])),
    (
        "silence amid a body that ends with the connection",
        says_and(Exchange.stall, b"HTTP/1.1 200 OK\r\n\r\nab"),
    ),
    ("a trickle of a head", trickle(b"HTTP/1.1 200 OK\r\nX: ")),
    ("a trickle of a body", trickle(HEAD)),
    ("a trickle of chunks", trickle(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n")),
]


@pytest.mark.parametrize(("_", "behaviour", "error"), ENDS, ids=[row[0] for row in ENDS])
def test_an_end_before_the_end_of_the_answer(
    _: str, behaviour: Behaviour, error: type[HttpError], over: Transport, client: Client
) -> None:
    with over.server(behaviour) as server:
        assert type(client.fails(server)) is error

        assert len(server.exchanges) == 1
        assert client.body(server) == b"hello"


@pytest.mark.parametrize("behaviour", [reset_amid_the_body, close_amid_the_body])
def test_an_end_amid_the_request(behaviour: Behaviour, over: Transport, client: Client) -> None:
    with over.server(behaviour, reads_bodies=False) as server:
        assert type(client.fails(server, **PUT)) is BrokenOff


def test_silence_and_trickles_end(plain: Transport, tls: Transport, new_client: NewClient) -> None:
    """All at once: libcurl's speed is that of the last five seconds."""
    client = new_client(silence=1)
    with contextlib.ExitStack() as stack:
        results: dict[tuple[str, str], Result] = {}
        for over in (plain, tls):
            for name, behaviour in SILENCES:
                server = stack.enter_context(over.server(behaviour))
                results[over.name, name] = Result(client.transfer(server))
            busy = stack.enter_context(over.server(slow_reader, reads_bodies=False))
            results[over.name, "a request that is not read"] = Result(client.transfer(busy, **PUT))

        for case, result in results.items():
            error = result.error()
            assert type(error) is TooSlow, case
            tells_no_secret(error)


def test_a_slow_body_above_the_limit_is_waited_for(over: Transport, new_client: NewClient) -> None:
    def slow(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 24000\r\n\r\n")
        for _ in range(24):
            exchange.send(b"x" * 1000)
            exchange.server.left.wait(0.06)

    with over.server(slow) as server:
        assert len(new_client(silence=1).body(server)) == 24_000


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 3]
)
def test_what_comes_before_the_answer_is_not_the_answer(
    first: bytes, over: Transport, client: Client
) -> None:
    with over.server(says(first, answer(b"", status="201 Created"))) as server:
        assert client.get(server, method="PUT", body=b"abc").status == 201


@pytest.mark.parametrize("status", ["408 Request Timeout", "421 Misdirected Request", "503 Slow Down"])
@pytest.mark.parametrize("kept", [True, False])
def test_refusals_are_answers(status: str, kept: bool, over: Transport, client: Client) -> None:
    refusal = answer(b"no", *([] if kept else ["Connection: close"]), status=status)
    with over.server(says(refusal)) as server:
        transfer = client.get(server)

        assert (transfer.status, transfer.take_body()) == (int(status[:3]), b"no")
        assert client.body(server) == b"hello"
        assert server.connections == (1 if kept else 2)


@pytest.mark.parametrize("end", [Exchange.close, Exchange.cut])
def test_a_server_that_says_goodbye_and_goes(
    end: Callable[[Exchange], None], over: Transport, client: Client
) -> None:
    with over.server(*[says_and(end, answer(b"hello", "Connection: close"))] * 3) as server:
        for _ in range(3):
            transfer = client.get(server)
            assert transfer.take_body() == b"hello"
            assert transfer.connection is not None
            assert not transfer.connection.tainted


def test_a_request_that_is_read_in_time_arrives_whole(over: Transport, client: Client) -> None:
    body = bytes(range(256)) * 40_000
    with over.server() as server:
        assert client.get(server, method="PUT", body=body).status == 200

        assert server.exchanges[0].body == body


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
        names = (f"storage.example:{server.port}:[::1],127.0.0.2,127.0.0.1",)
        url = f"{scheme}://storage.example:{server.port}/"

        transfer = client.get(server, url=url, resolve=names, admits=asked.append)

        assert transfer.take_body() == b"hello"
        assert asked == ["::1", "127.0.0.2", "127.0.0.1"]
        assert server.exchanges[0].header("host") == f"storage.example:{server.port}"


def test_every_address_is_dead(client: Client) -> None:
    port = closed_port()
    names = (f"storage.example:{port}:[::1],127.0.0.2,127.0.0.1",)
    request = Request(f"http://storage.example:{port}/?{CANARY}", resolve=names)

    assert type(failure_of(Transfer(client.session, request))) is CouldNotConnect


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
        names = (f"storage.example:{server.port}:[::1],127.0.0.1",)
        url = f"{server.url.partition(':')[0]}://storage.example:{server.port}/"

        assert type(client.fails(server, url=url, resolve=names, admits=admits)) is NotAdmitted
        assert server.exchanges == []


def test_given_addresses_are_forgotten_with_their_request(plain: Transport, client: Client) -> None:
    with plain.server() as server:
        url = f"http://does-not-exist.invalid:{server.port}/"
        client.get(server, url=url, resolve=(f"does-not-exist.invalid:{server.port}:127.0.0.1",), alone=True)

        assert type(client.fails(server, url=url)) is CouldNotConnect


def test_addresses_that_one_session_was_given_are_not_anothers(
    plain: Transport, new_client: NewClient
) -> None:
    with plain.server() as server:
        url = f"http://does-not-exist.invalid:{server.port}/"
        names = (f"does-not-exist.invalid:{server.port}:127.0.0.1",)
        new_client().get(server, url=url, resolve=names)

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


# -- limits of ours ------------------------------------------------------------------------------------------
def test_a_body_that_is_longer_than_allowed(over: Transport, client: Client) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 30 + b"0\r\n\r\n"
    endless = says_and(Exchange.close, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101)
    for behaviour in (says(answer(b"x" * 101)), says(chunked), endless):
        with over.server(behaviour, says(answer(b"x" * 100))) as server:
            assert type(client.fails(server, max_bytes=100)) is TooLong
            assert len(client.body(server, max_bytes=100)) == 100


def test_a_length_beyond_all_measure_takes_no_memory(over: Transport, client: Client) -> None:
    with over.server(
        says_and(Exchange.close, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % 10**17)
    ) as server:
        assert type(client.fails(server)) is TooLong


def test_no_file_handle_is_a_fault_of_this_machine(plain: Transport, client: Client) -> None:
    with plain.server() as server:
        client.get(server)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(socket.socket())
            errors = [client.fails(server, fresh=True)]
            held.pop().close()  # one is left for the socket, and none for libcurl's duplicate
            errors.append(client.fails(server, fresh=True))
        finally:
            for sock in held:
                sock.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        for error in errors:
            assert isinstance(error, OSError), error
            assert error.errno == 24
        assert client.body(server, fresh=True) == b"hello"
