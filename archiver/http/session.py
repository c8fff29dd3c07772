"""Requests over one set of connections that are shared with nobody else.

libcurl's defaults are not ours. It would obey HTTPS_PROXY, which lets a proxy choose the address that is connected to;
collapse `/../` in a signed path; ignore SSL_CERT_FILE; follow .netrc. Each is set here explicitly, and tested.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pycurl

from archiver.http.connections import Connections
from archiver.http.errors import (
    BrokenOff,
    CertificateRejected,
    CouldNotConnect,
    HttpError,
    InvalidResponse,
    TooLong,
    TooSlow,
)
from archiver.http.multi import Multi
from archiver.http.transfer import Request, Transfer

_LOW_SPEED_BYTES = (
    1024  # a second; less for as long as `Timeouts.silence` counts as a stall: a GiB would take 12 days
)
_MAX_IDLE_SECONDS = 15  # a connection unused for longer is not trusted; S3 closes it at about 20
_BUFFER_BYTES = 512 * 1024
_LINE_BREAK = re.compile(r"[\r\n\0]")
_OUR_MACHINE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EIO}
)
"""No fault of the other side: too few file handles, too little memory, a full disk."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect: timedelta = timedelta(seconds=10)  # for TCP and TLS together
    silence: timedelta = timedelta(
        seconds=30
    )  # with less than the low-speed limit; whole seconds, at least one


@dataclass(frozen=True, slots=True)
class Options:
    """`ca_file`: the authorities that are trusted, in PEM; None: libcurl's own, for plain HTTP. `proxy`: an address, or
    empty for none: the environment's is never used by itself."""

    ca_file: Path | None = None
    timeouts: Timeouts = Timeouts()
    user_agent: str = "recording-archiver"
    proxy: str = ""
    max_idle: int = 64


class Session:
    """Safe to use from several threads: everything happens in the loop's. Of one process: see `Loop`.

    Its connections lie in a share of libcurl's, one for each session of a multi handle: so that they are never used by
    another session, while names, TLS sessions and the parsed authorities are known to all.
    """

    def __init__(self, multi: Multi, options: Options = Options()) -> None:
        self._multi = multi
        self._options = options
        self._share: Any = None
        self._connections = Connections()
        self._spare: list[Any] = []
        self._active: set[Transfer] = set()
        self._closed = False

    # -- from any thread -----------------------------------------------------------------------------------
    def submit(self, transfer: Transfer) -> None:
        self._multi.loop.call_soon(partial(self._begin, transfer))

    def cancel(self, transfer: Transfer) -> None:
        """End it now, and its connection with it. Repeatable."""
        self._multi.loop.call_soon(partial(self._cancel, transfer))

    def unpause(self, transfer: Transfer) -> None:
        self._multi.loop.call_soon(partial(self._unpause, transfer))

    def close(self) -> None:
        """End all transfers and connections. Repeatable."""
        self._multi.loop.call_soon(self._close)

    # -- in the loop's thread ------------------------------------------------------------------------------
    def _begin(self, transfer: Transfer) -> None:
        if transfer.done:
            return
        if self._closed:
            transfer.finish(HttpError("the session is closed"))
            return
        try:
            self._admit(transfer.request)
            self._connections.check_idle()
            easy = self._spare.pop() if self._spare else self._new_easy()
            self._prepare(easy, transfer)
        except Exception as error:  # noqa: BLE001 - it is the transfer's, whatever it is
            transfer.finish(error)
            return
        self._active.add(transfer)
        self._multi.add(easy)

    def _admit(self, request: Request) -> None:
        """A kept connection may lead to an address that this request may not use, though another one might."""
        if request.admits is not None:
            for peer in self._connections.peers(_origin(request.url)):
                request.admits(peer)

    def _new_easy(self) -> Any:
        options = self._options
        if self._share is None:
            self._share = pycurl.CurlShare()
            self._share.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_CONNECT)
        easy = pycurl.Curl()
        easy.setopt(pycurl.SHARE, self._share)
        easy.session = self
        easy.setopt(pycurl.NOSIGNAL, 1)
        easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        easy.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        easy.setopt(pycurl.PROXY, options.proxy)
        easy.setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        easy.setopt(pycurl.PATH_AS_IS, 1)
        easy.setopt(pycurl.FOLLOWLOCATION, 0)
        easy.setopt(pycurl.HTTP_CONTENT_DECODING, 0)
        easy.setopt(pycurl.USERAGENT, options.user_agent)
        easy.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        easy.setopt(pycurl.UPLOAD_BUFFERSIZE, 2 * _BUFFER_BYTES)
        easy.setopt(pycurl.TCP_NODELAY, 1)
        easy.setopt(pycurl.TCP_KEEPALIVE, 1)
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, int(options.timeouts.connect.total_seconds() * 1000))
        easy.setopt(pycurl.LOW_SPEED_LIMIT, _LOW_SPEED_BYTES)
        easy.setopt(pycurl.LOW_SPEED_TIME, max(1, round(options.timeouts.silence.total_seconds())))
        if options.ca_file is not None:
            easy.setopt(pycurl.CAINFO, str(options.ca_file))
        easy.setopt(pycurl.MAXAGE_CONN, _MAX_IDLE_SECONDS)
        return easy

    def _prepare(self, easy: Any, transfer: Transfer) -> None:
        request = transfer.request
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        if any(map(_LINE_BREAK.search, lines)) or _LINE_BREAK.search(request.url):
            raise InvalidResponse("the request would hold a line break in its address or headers")
        try:
            encoded = [line.encode("latin-1") for line in lines]
        except UnicodeEncodeError:
            raise InvalidResponse(
                "the request would hold a character that HTTP headers cannot carry"
            ) from None
        easy.setopt(pycurl.URL, request.url)
        if request.body is None and request.method == "GET":
            easy.setopt(pycurl.HTTPGET, 1)
            easy.unsetopt(pycurl.CUSTOMREQUEST)
        else:
            easy.setopt(pycurl.POST, 1)
            easy.setopt(pycurl.POSTFIELDS, request.body or b"")
            easy.setopt(pycurl.CUSTOMREQUEST, request.method)
            encoded += (
                [b"Expect:"]
                if "content-type" in map(str.lower, request.headers)
                else [b"Expect:", b"Content-Type:"]
            )
        easy.setopt(pycurl.HTTPHEADER, encoded)
        easy.setopt(pycurl.FRESH_CONNECT, request.fresh or transfer.resubmitted)
        easy.setopt(pycurl.FORBID_REUSE, request.alone)
        easy.setopt(pycurl.RESOLVE, list(request.resolve))
        easy.setopt(pycurl.OPENSOCKETFUNCTION, partial(self._open_socket, transfer))
        easy.setopt(pycurl.HEADERFUNCTION, transfer.on_line)
        easy.setopt(pycurl.WRITEFUNCTION, partial(self._on_data, transfer))
        easy.transfer = transfer
        transfer.easy = easy

    def _cancel(self, transfer: Transfer) -> None:
        self._end(transfer, HttpError("it was cancelled"))

    def _unpause(self, transfer: Transfer) -> None:
        easy: Any = transfer.easy
        if easy is not None:
            easy.pause(pycurl.PAUSE_CONT)

    def _close(self) -> None:
        self._closed = True
        for transfer in list(self._active):
            self._end(transfer, HttpError("the session is closed"))
        for easy in self._spare:
            easy.close()
        self._spare.clear()
        if self._share is not None:
            self._share.close()
            self._share = None

    def _end(self, transfer: Transfer, error: BaseException | None) -> None:
        easy: Any = transfer.easy
        if easy is not None:
            self._active.discard(transfer)
            self._multi.remove(easy)
            self._put_back(easy)
        transfer.finish(error)

    def took(self, fd: int) -> None:
        """One of its connections is used again."""
        self._connections.busy(fd)

    def _put_back(self, easy: Any) -> None:
        if self._closed:
            easy.close()
            return
        easy.transfer = None
        easy.setopt(pycurl.WRITEFUNCTION, _ignore)  # or it would keep the transfer, and with it the body
        easy.setopt(pycurl.HEADERFUNCTION, _ignore)
        self._spare.append(easy)

    def finished(self, easy: Any, failure: tuple[int, str] | None) -> None:
        transfer: Transfer = easy.transfer
        reused = not easy.getinfo(pycurl.NUM_CONNECTS)
        if (
            failure is not None
            and reused
            and transfer.head is None
            and not transfer.resubmitted
            and transfer.error is None
        ):
            self._send_again(easy, transfer)
            return
        error = transfer.error or (self._error(easy, *failure) if failure else None)
        if error is None and transfer.head is None:
            try:
                transfer.take_head()
            except BaseException as raised:  # noqa: BLE001 - it is the transfer's
                error = raised
        fd = easy.getinfo(pycurl.ACTIVESOCKET)
        self._active.discard(transfer)
        self._multi.remove(easy)
        if transfer.head is not None or failure is None:
            connection = self._connections.served(
                easy.getinfo(pycurl.CONN_ID),
                _origin(transfer.request.url),
                easy.getinfo(pycurl.PRIMARY_IP),
                fd,
            )
            transfer.connection, transfer.ordinal = connection, connection.served
            if fd >= 0:
                self._multi.idle[fd] = self
            if transfer.head is not None and transfer.head.ambiguous:
                self._connections.shut_down(connection)
        self._put_back(easy)
        transfer.finish(error)

    def _send_again(self, easy: Any, transfer: Transfer) -> None:
        """A kept connection had ended, which shows only when it is used."""
        self._active.discard(transfer)
        self._multi.remove(easy)
        self._put_back(easy)
        transfer.easy = None
        transfer.reset()
        transfer.resubmitted = True
        self._begin(transfer)

    # -- called by libcurl ---------------------------------------------------------------------------------
    def _open_socket(self, transfer: Transfer, _purpose: int, address: tuple[Any, ...]) -> Any:
        family, kind, protocol, sockaddr = address
        try:
            if transfer.request.admits is not None:
                transfer.request.admits(str(sockaddr[0]))
            opened = socket.socket(family, kind, protocol)
            self._multi.loop.call_soon(opened.close)  # pycurl hands libcurl a duplicate
            return opened
        except Exception as error:  # noqa: BLE001 - it is the transfer's
            transfer.error = error
            return pycurl.SOCKET_BAD

    def _on_data(self, transfer: Transfer, chunk: bytes) -> int | None:
        try:
            return None if transfer.on_data(chunk) else pycurl.WRITEFUNC_PAUSE
        except BaseException as error:  # noqa: BLE001 - it is the transfer's
            transfer.error = error
            return -1

    # -- what went wrong -----------------------------------------------------------------------------------
    def _error(self, easy: Any, code: int, words: str) -> BaseException:
        number = easy.getinfo(pycurl.OS_ERRNO)
        if number in _OUR_MACHINE:
            return OSError(number, os.strerror(number))
        if code == pycurl.E_OUT_OF_MEMORY:
            return MemoryError()
        seconds = self._options.timeouts.silence.total_seconds()
        if code in (pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT):
            return CertificateRejected(_reason(words))
        if code == pycurl.E_SSL_CACERT_BADFILE:
            return CertificateRejected(
                f"the file of trusted authorities cannot be read: {self._options.ca_file}"
            )
        if code == pycurl.E_OPERATION_TIMEDOUT:
            if not easy.getinfo(pycurl.PRETRANSFER_TIME):
                return CouldNotConnect(
                    f"no connection within {self._options.timeouts.connect.total_seconds():g} s"
                )
            return TooSlow(f"less than {_LOW_SPEED_BYTES} bytes a second came for {seconds:g} s")
        if code in _CONNECTING or (code in _BROKEN and not easy.getinfo(pycurl.PRETRANSFER_TIME)):
            return CouldNotConnect(
                _CONNECTING.get(code)
                or f"the connection failed ({os.strerror(number) if number else _reason(words)})"
            )
        if code == pycurl.E_GOT_NOTHING:
            return BrokenOff("the connection was closed before a response")
        if code in _BROKEN:
            return BrokenOff("the connection was closed before the end of the response")
        if code == pycurl.E_FILESIZE_EXCEEDED:
            return TooLong("the response is longer than was expected")
        return InvalidResponse(_INVALID.get(code, f"the response is not well-formed (libcurl error {code})"))


_CONNECTING = {
    pycurl.E_COULDNT_CONNECT: None,
    pycurl.E_COULDNT_RESOLVE_HOST: "its name does not resolve",
    pycurl.E_SSL_CONNECT_ERROR: "the TLS handshake failed",
}
_BROKEN = frozenset({pycurl.E_PARTIAL_FILE, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR, pycurl.E_GOT_NOTHING})
_INVALID: Mapping[int, str] = {
    pycurl.E_URL_MALFORMAT: "the address cannot be requested",
    pycurl.E_UNSUPPORTED_PROTOCOL: "what came is not an HTTP/1.x response",
    pycurl.E_BAD_CONTENT_ENCODING: "the response has a transfer encoding other than chunked",
}


def _reason(words: str) -> str:
    """OpenSSL's part of libcurl's message."""
    return words.partition("SSL certificate problem: ")[2] or words


def _origin(url: str) -> str:
    return url[: url.find("/", 8)] if url.find("/", 8) > 0 else url


def _ignore(_: bytes) -> None:
    return
