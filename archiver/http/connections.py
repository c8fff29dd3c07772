"""Which connection brought which response, and whether it may be used again.

libcurl looks at a kept connection only when it was idle for about a second. So the sockets of idle connections are
polled here before every request: one on which something came that nobody asked for is shut down (libcurl then finds it
dead and connects anew), and marked `tainted`: what it brought may be the response to another request.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress

_TLS_ALERT, _TLS_DATA = 0x15, 0x17
_REMEMBERED = 256  # connections, before the closed ones among them are forgotten
_ALERT_BYTES = 19  # of TLS 1.3: two, its type and the tag; the shortest HTTP response has more


class Connection:
    """One connection, closed or not. `served`: responses that it brought."""

    __slots__ = ("fd", "number", "origin", "peer", "served", "socket_number", "tainted")

    def __init__(self, number: int, origin: str, peer: str) -> None:
        self.number = number
        self.origin = origin
        self.peer = peer
        self.fd = -1
        self.socket_number = 0
        self.served = 0
        self.tainted = False

    @property
    def is_open(self) -> bool:
        """libcurl closes sockets without a word, and their descriptors are given to others."""
        return self.fd >= 0 and _socket_number(self.fd) == self.socket_number


class Connections:
    """Those of one session. In its loop's thread alone."""

    def __init__(self) -> None:
        self._open: dict[int, Connection] = {}  # by libcurl's number; some may be closed
        self._idle: dict[int, Connection] = {}  # by file descriptor
        self._poll = select.poll()

    def peers(self, origin: str) -> set[str]:
        """The addresses that open connections to `origin` lead to."""
        return {connection.peer for connection in self._open.values() if connection.origin == origin}

    def served(self, number: int, origin: str, peer: str, fd: int) -> Connection:
        """A response came over connection `number`. `fd`: -1 when it is closed by now."""
        connection = self._open.get(number)
        if connection is None:
            if len(self._open) >= _REMEMBERED:
                self._open = {other.number: other for other in self._open.values() if other.is_open}
            connection = self._open[number] = Connection(number, origin, peer)
        connection.served += 1
        if fd < 0:
            del self._open[number]
        else:
            if connection.fd != fd:
                connection.fd, connection.socket_number = fd, _socket_number(fd)
            self._idle[fd] = connection
            self._poll.register(fd, select.POLLIN)
        return connection

    def busy(self, fd: int) -> None:
        """A request is sent over it."""
        if self._idle.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def check_idle(self) -> None:
        """Shut down those that may not be used again."""
        if not self._idle:
            return
        for fd, _ in self._poll.poll(0):
            connection = self._idle[fd]
            if connection.is_open and _holds_a_response(fd, tls=connection.origin.startswith("https:")):
                connection.tainted = True
            self.shut_down(connection)

    def shut_down(self, connection: Connection) -> None:
        """Nothing follows on it; libcurl closes it when it finds it dead."""
        self.busy(connection.fd)
        if connection.is_open:
            with _borrowed(connection.fd) as sock, suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open.pop(connection.number, None)

    def shut_down_idle(self) -> None:
        for connection in list(self._idle.values()):
            self.shut_down(connection)


def _socket_number(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return -1


class _borrowed:  # noqa: N801 - reads as a verb
    """libcurl's own socket, as Python's, without closing it."""

    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(fileno=fd)

    def __enter__(self) -> socket.socket:
        return self._sock

    def __exit__(self, *_: object) -> None:
        self._sock.detach()


def _holds_a_response(fd: int, *, tls: bool) -> bool:
    """Whether what came is more than the end of the connection."""
    with _borrowed(fd) as sock:
        try:
            came = sock.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return False
    if not tls or len(came) < 5:
        return bool(came)
    is_alert = came[0] == _TLS_ALERT or (
        came[0] == _TLS_DATA and int.from_bytes(came[3:5], "big") <= _ALERT_BYTES
    )
    return not is_alert
