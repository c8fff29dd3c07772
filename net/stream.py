"""One connected TCP or TLS stream: every wait ends, and a byte costs as little as it can.

A Python socket with a timeout polls before each call and is woken for each packet: with thirty threads, most of what a
small object cost (docs/decisions/0004-data-path.md). Here the kernel keeps the time (SO_RCVTIMEO, SO_SNDTIMEO) and
fills the whole buffer before it wakes us (MSG_WAITALL). OpenSSL would hide the kernel's timeouts from Python, so a TLS
socket keeps Python's.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable
from time import monotonic

Buffer = bytes | bytearray | memoryview

_PIECE_BYTES = 1024 * 1024  # `sendall` over TLS counts its timeout over all that it is given
_JOINED_BYTES = 32 * 1024  # of a body, encrypted together with its head: one packet or a few


class Stream:
    """Takes over `sock`, connected and shaken hands with. `wait_seconds` is how long a call waits while nothing moves.
    Used by one thread at a time. What goes wrong is an OSError, of which TimeoutError is one."""

    def __init__(self, sock: socket.socket, wait_seconds: float) -> None:
        self._sock = sock
        self._wait_seconds = wait_seconds
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        if self._tls is not None:
            sock.settimeout(wait_seconds)
        else:
            seconds, rest = divmod(wait_seconds, 1)
            timeval = struct.pack("@ll", int(seconds), int(rest * 1_000_000))
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        self._arrivals = select.poll()
        self._arrivals.register(sock, select.POLLIN)

    def send(self, head: bytes, body: Buffer = b"") -> None:
        """All of both."""
        view = memoryview(body)
        if self._tls is not None:
            first = min(_JOINED_BYTES, len(view))
            self._tls.sendall(head + view[:first] if first else head)
            for start in range(first, len(view), _PIECE_BYTES):
                self._tls.sendall(view[start : start + _PIECE_BYTES])
            return
        try:
            sent = self._sock.sendmsg((head, view)) - len(head)
            while sent < 0:
                sent += self._sock.send(head[sent:])
            while sent < len(view):
                sent += self._sock.send(view[sent:])
        except BlockingIOError:
            raise TimeoutError("nothing could be sent") from None

    def receive(self, into: memoryview) -> int:
        """Some bytes, as soon as there are any; 0 at the end of the stream. TimeoutError when none came."""
        try:
            return self._sock.recv_into(into)
        except BlockingIOError:
            raise TimeoutError("nothing came") from None

    def receive_all(self, into: memoryview) -> int:
        """As `receive`, but waits for all of `into` for as long as `wait_seconds`. May return less before that."""
        if self._tls is not None:
            return self._receive_records(self._tls, into)
        try:
            return self._sock.recv_into(into, 0, socket.MSG_WAITALL)
        except BlockingIOError:
            raise TimeoutError("nothing came") from None

    def _receive_records(self, tls: ssl.SSLSocket, into: memoryview) -> int:
        """OpenSSL gives one record at a time, 16 KiB at most: read in as few steps as Python can do."""
        read: Callable[[int, memoryview], int] = tls.read  # type: ignore[assignment]  # with a buffer it counts
        size, end = len(into), monotonic() + self._wait_seconds
        filled = count = read(size, into)
        while count and filled < size and monotonic() < end:
            try:
                count = read(size - filled, into[filled:])
            except TimeoutError:
                break
            filled += count
        return filled

    def is_silent(self) -> bool:
        """Whether nothing has come that was not received; an end of the stream counts as something. Beneath TLS, a
        session ticket does too: the price is one new connection."""
        if self._tls is not None and self._tls.pending():
            return False
        return not self._arrivals.poll(0)

    def close(self) -> None:
        self._sock.close()
