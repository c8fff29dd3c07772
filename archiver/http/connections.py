"""Track which connection brought which response, and whether it may be reused.

libcurl looks at a kept connection only when it was idle for a second. So nothing is sent over one before its socket
was polled here, at the last moment. One on which something came that nobody asked for is shut down and marked
`tainted`, for what it brought may be the responses to other requests. One that has ended is shut down as well.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

_TLS_ALERT, _TLS_DATA = 0x15, 0x17
_LEFT_ALONE_SECONDS = 0.5  # libcurl looks at those that were idle for twice as long
_ALERT_BYTES = 19  # of TLS 1.3: two, its type and the tag; the shortest HTTP response has more

Name = tuple[str, int, str, int]
"""The peer's address and port, and ours: unique among the connections that are open."""


class Connection:
    """One connection, closed or not. `served`: responses that it brought."""

    __slots__ = (
        "_poll", "_tainted", "_tls", "condemned", "fd", "idle", "idle_since", "name", "served", "socket_number",
    )  # fmt: skip

    def __init__(self, *, tls: bool) -> None:
        self._tls = tls
        self.name: Name | None = None
        self.fd = -1
        self.socket_number = 0
        self._poll = select.poll()  # of `fd`
        self.idle = False
        self.idle_since = 0.0
        self.served = 0
        self.condemned = False  # what it brought may be mixed up: nothing follows on it
        self._tainted = False

    @property
    def tainted(self) -> bool:
        """Return whether something came that nobody asked for; while it is idle, up to now."""
        if not self._tainted and self.idle and self.is_open and _readable(self.fd):
            self._tainted = _holds_a_response(self.fd, tls=self._tls)
        return self._tainted

    @tainted.setter
    def tainted(self, value: bool) -> None:
        self._tainted = value

    def opened(self, fd: int) -> None:
        """`fd` is its socket's."""
        self.fd, self.socket_number = fd, _socket_number(fd)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    @property
    def is_readable(self) -> bool:
        """Whether something came, or it has ended. Ask while it is open, in the loop's thread alone: two threads cannot
        use one poll object at once."""
        return bool(self._poll.poll(0))

    @property
    def is_open(self) -> bool:
        """libcurl closes sockets without a word, and their descriptors are given to others."""
        return self.fd >= 0 and _socket_number(self.fd) == self.socket_number


class Connections:
    """Those of one session. In its loop's thread alone."""

    def __init__(self, max_idle: int, max_idle_seconds: float) -> None:
        self._max_idle = max_idle
        self._max_idle_seconds = max_idle_seconds
        self._idle: dict[int, Connection] = {}  # by file descriptor, the longest idle first
        self._named: dict[Name, Connection] = {}  # the same

    def served(self, connection: Connection, name: Name | None, fd: int) -> None:
        """A response came over `connection`. `fd`: -1 when it is closed by now; else it is idle now."""
        connection.served += 1
        connection.name = name
        if fd < 0 or name is None:
            return
        if connection.fd != fd:
            connection.opened(fd)
        for other in (self._idle.get(fd), self._named.get(name)):
            if other is not None:  # closed without a word, and its descriptor or port given to this one
                self._busy(other)
        connection.idle, connection.idle_since = True, monotonic()
        self._idle[fd] = self._named[name] = connection
        if len(self._idle) > self._max_idle:
            self.shut_down(next(iter(self._idle.values())))

    def take(self, name: Name) -> Connection | None:
        """The connection `name`, busy from now on, if a request may be sent over it."""
        connection = self._named.get(name)
        if connection is None:  # shut down, or its last response was not looked at yet
            return None
        too_old = monotonic() - connection.idle_since >= self._max_idle_seconds
        # libcurl chose it, so that it is open, and its descriptor is what it was
        if connection.condemned or too_old or connection.is_readable:
            self._judge(connection)
            return None
        self._busy(connection)
        return connection

    def check_idle(self) -> None:
        """Check all idle connections before libcurl chooses one, when some have been idle for long enough that it may
        close them by itself, and with them what came on them."""
        oldest = next(iter(self._idle.values()), None)
        if oldest is not None and monotonic() - oldest.idle_since >= _LEFT_ALONE_SECONDS:
            poll = select.poll()
            for fd in self._idle:
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(0):
                self._judge(self._idle[fd])

    def shut_down(self, connection: Connection) -> None:
        """Nothing follows on it; libcurl closes it when it finds it dead."""
        self._busy(connection)
        if connection.is_open:
            with _borrowed(connection.fd) as sock, suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _busy(self, connection: Connection) -> None:
        connection.idle = False
        if connection.name is not None and self._named.get(connection.name) is connection:
            del self._named[connection.name]
        if self._idle.get(connection.fd) is connection:
            del self._idle[connection.fd]

    def _judge(self, connection: Connection) -> None:
        """Something came, it has ended, or it is too old."""
        _ = connection.tainted  # looked at while it can be
        self.shut_down(connection)


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _socket_number(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return -1


@contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """libcurl's own socket, as Python's, without closing it."""
    sock = socket.socket(fileno=fd)
    try:
        yield sock
    finally:
        sock.detach()


def _holds_a_response(fd: int, *, tls: bool) -> bool:
    """Return whether what came is more than the end of the connection."""
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
