"""A server that does, byte by byte, what its script says, over plain TCP or TLS; and a client to ask it.

A behaviour is a function of an `Exchange`: the request that came, and the means to answer it. Behaviours are used up
one a request, in order of arrival; after them `server.otherwise` answers.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pycurl

from archiver.http.connections import Connection
from archiver.http.handle import Handle
from archiver.http.session import Session
from archiver.http.transfer import Decide, Request, Transfer
from archiver.http.waiting import complete

CANARY = "canary-7f3a"
SECRET = {"X-Secret": CANARY}
WAIT_SECONDS = 20.0  # for what comes at once, on a busy machine


def answer(body: bytes = b"hello", *lines: str, status: str = "200 OK") -> bytes:
    """A proper response."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


@dataclass
class Exchange:
    server: Server
    sock: socket.socket
    connection: int  # from 1
    number: int  # of this request, over all connections, from 1
    head: bytes
    body: bytes
    goes_on: bool = True

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n")[0].decode()

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    def send(self, *pieces: bytes) -> None:
        """Each in a TLS record of its own, all of them in as few packets as it takes."""
        cork = getattr(socket, "TCP_CORK", None)
        if cork is not None and len(pieces) > 1:
            self.sock.setsockopt(socket.IPPROTO_TCP, cork, 1)
        for piece in pieces:
            self.sock.sendall(piece)
        if cork is not None and len(pieces) > 1:
            self.sock.setsockopt(socket.IPPROTO_TCP, cork, 0)

    def close(self) -> None:
        """As one should: after a close_notify, where there is TLS."""
        self.goes_on = False
        if isinstance(self.sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self.sock.settimeout(0)
                self.sock.unwrap()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def cut(self) -> None:
        """A clean end of TCP, none of TLS."""
        self.goes_on = False
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def reset(self) -> None:
        self.goes_on = False
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def stall(self) -> None:
        """Nothing more comes until the server is left, or the client goes."""
        self.goes_on = False
        self.sock.settimeout(0.05)
        while not self.server.left.is_set():
            try:
                if not self.sock.recv(65536):
                    return
            except TimeoutError:
                continue


Behaviour = Callable[[Exchange], None]


@dataclass
class Server:
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    otherwise: Behaviour = field(default=lambda exchange: exchange.send(answer()))
    exchanges: list[Exchange] = field(default_factory=list)
    reads_bodies: bool = True

    def __post_init__(self) -> None:
        self.left = threading.Event()
        self.connections = 0
        self.failures: list[str] = []
        self._script: deque[Behaviour] = deque()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, 0), family=family, backlog=128)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def script(self, *behaviours: Behaviour) -> Self:
        self._script.extend(behaviours)
        return self

    def drop_connections(self) -> None:
        """End every open connection, as a server does that is restarted."""
        with self._lock:
            sockets = list(self._open)
        for sock in sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.left.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
        assert not self.failures, self.failures

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._open.add(sock)
                number = self.connections
            if self.left.is_set():
                sock.close()
                return
            self._start(self._serve, sock, number)

    def _serve(self, plain: socket.socket, connection: int) -> None:
        sock = plain
        try:
            if self.tls is not None:
                tls = self.tls.wrap_socket(
                    plain, server_side=True, suppress_ragged_eofs=False, do_handshake_on_connect=False
                )
                sock = tls
                with self._lock:
                    self._open.discard(plain)
                    self._open.add(sock)
                if not self.left.is_set():
                    tls.do_handshake()
            came = b""
            while not self.left.is_set():
                while b"\r\n\r\n" not in came:
                    piece = sock.recv(65536)
                    if not piece:
                        return
                    came += piece
                head, _, came = came.partition(b"\r\n\r\n")
                exchange = Exchange(self, sock, connection, 0, head, b"")
                length = int(exchange.header("content-length") or 0) if self.reads_bodies else 0
                body = bytearray(came)
                while len(body) < length:
                    piece = sock.recv(1024 * 1024)
                    if not piece:
                        return
                    body += piece
                came = bytes(body[length:])
                exchange.body = bytes(body[:length])
                with self._lock:
                    self.exchanges.append(exchange)
                    exchange.number = len(self.exchanges)
                    behaviour = self._script.popleft() if self._script else self.otherwise
                behaviour(exchange)
                if not exchange.goes_on:
                    return
        except OSError:  # the client went
            return
        except Exception:
            self.failures.append(traceback.format_exc())
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()


# -- behaviours ----------------------------------------------------------------------------------------------
def says(*pieces: bytes) -> Behaviour:
    return lambda exchange: exchange.send(*pieces)


def says_and(end: Callable[[Exchange], None], *pieces: bytes) -> Behaviour:
    """Then `Exchange.close`, `cut`, `reset` or `stall`."""

    def behave(exchange: Exchange) -> None:
        exchange.send(*pieces)
        end(exchange)

    return behave


def bit_by_bit(response: bytes) -> Behaviour:
    """Every byte in a packet, and a TLS record, of its own."""

    def behave(exchange: Exchange) -> None:
        for at in range(len(response)):
            exchange.sock.sendall(response[at : at + 1])

    return behave


def own(exchange: Exchange) -> bytes:
    """The answer to this request: its path."""
    return answer(exchange.line.split(" ")[1].split("?")[0].encode())


def honest(exchange: Exchange) -> None:
    exchange.send(own(exchange))


def together(count: int) -> Callable[[Exchange], None]:
    """Answers once `count` requests are there: as many connections are open at once."""
    barrier = threading.Barrier(count)

    def behave(exchange: Exchange) -> None:
        barrier.wait(WAIT_SECONDS)
        honest(exchange)

    return behave


# -- the client ----------------------------------------------------------------------------------------------
def knowing(session: Session, *names: str) -> Session:
    """`session`, which knows the addresses of `names` (`host:port:address,address`) without asking the resolver."""
    new_handle = session._new_handle

    def made() -> Handle:
        handle = new_handle()
        handle.easy.setopt(pycurl.RESOLVE, list(names))
        return handle

    session._new_handle = made  # type: ignore[method-assign]
    return session


@dataclass(frozen=True)
class Client:
    session: Session

    def request(self, server: Server, path: str = "/file", **options: Any) -> Request:
        """With a secret wherever a request has room for one."""
        headers = {**SECRET, **options.pop("headers", {})}
        request = Request(f"{server.url}{path}?sig={CANARY}", headers)
        return replace(request, **options)

    def transfer(
        self,
        server: Server,
        path: str = "/file",
        *,
        decide: Decide | None = None,
        max_bytes: int = 2**31,
        **options: Any,
    ) -> Transfer:
        return Transfer(self.session, self.request(server, path, **options), decide, max_bytes)

    def get(self, server: Server, path: str = "/file", **options: Any) -> Transfer:
        return run(self.transfer(server, path, **options))

    def body(self, server: Server, path: str = "/file", **options: Any) -> bytes:
        return self.get(server, path, **options).take_body()

    def fails(self, server: Server, path: str = "/file", **options: Any) -> BaseException:
        """Return how it fails. No text that a log would show holds a secret."""
        return failure_of(self.transfer(server, path, **options))


def run(transfer: Transfer) -> Transfer:
    async def wait() -> Transfer:
        return await transfer

    return complete(wait())


class Result:
    """Of a transfer that goes on by itself."""

    def __init__(self, transfer: Transfer) -> None:
        self.transfer = transfer
        self._done = threading.Event()
        self._error: BaseException | None = None
        transfer.start(self._ended)

    def _ended(self, _: object, error: BaseException | None) -> None:
        self._error = error
        self._done.set()

    def error(self) -> BaseException | None:
        assert self._done.wait(WAIT_SECONDS), "the transfer never ended"
        return self._error


def failure_of(transfer: Transfer) -> BaseException:
    try:
        run(transfer)
    except Exception as error:
        tells_no_secret(error)
        return error
    raise AssertionError(f"it went well, with status {transfer.status}")


def tells_no_secret(error: BaseException) -> None:
    reported = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args) + repr(vars(error))
    assert CANARY not in reported


def read(transfer: Transfer, piece_bytes: int = 999) -> bytes:
    """All of a body that is streamed."""
    assert transfer.streamed is not None
    body, piece = bytearray(), memoryview(bytearray(piece_bytes))
    while count := transfer.streamed.readinto(piece):
        body += piece[:count]
    return bytes(body)


def streamed(transfer: Transfer) -> None:
    """The decision to stream."""
    transfer.stream()


def connection_of(transfer: Transfer) -> Connection:
    assert transfer.connection is not None
    return transfer.connection


def start(client: Client, server: Server, count: int) -> list[Result]:
    return [Result(client.transfer(server, f"/{number}")) for number in range(count)]


@contextlib.contextmanager
def listening_only(host: str = "127.0.0.1") -> Iterator[int]:
    """A port at which connections are made and nothing is said."""
    with socket.create_server((host, 0), backlog=16) as listener:
        yield listener.getsockname()[1]


def closed_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        port: int = listener.getsockname()[1]
    return port


@dataclass(frozen=True)
class Transport:
    """Plain or TLS: makes servers, and says which authority a client has to trust."""

    name: str
    context: ssl.SSLContext | None
    ca_file: Path

    def server(self, *behaviours: Behaviour, **options: Any) -> Server:
        return Server(self.context, **options).script(*behaviours)


def all_of(servers: Iterable[Server]) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    for server in servers:
        stack.enter_context(server)
    return stack
