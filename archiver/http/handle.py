"""libcurl's easy handle, and the transfer that it carries: the options of a request, and what libcurl calls.

libcurl's defaults are not ours. It would obey HTTPS_PROXY, which lets a proxy choose the address that is connected to;
collapse `/../` and rewrite `%2e` in a signed path; ignore SSL_CERT_FILE; follow .netrc. Each is set here explicitly,
and tested.

Within its callbacks libcurl must not be called. They only note things down, or post to the loop.
"""

from __future__ import annotations

import os
import re
import socket
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import pycurl

from archiver.http.errors import InvalidRequest
from archiver.http.options import LOW_SPEED_BYTES, Options
from archiver.http.pieces import Pieces

if TYPE_CHECKING:
    from archiver.http.session import Session
    from archiver.http.transfer import Request, Transfer

_RECEIVE_BUFFER_BYTES = 512 * 1024  # one for each loop
_SEND_BUFFER_BYTES = 256 * 1024  # one for each request that is sent: 32 of 1 MiB took 24 MiB more
_SUPPRESS_CONNECT_HEADERS = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, which pycurl has no name for
_URL = re.compile(r"(?i:https?)://(?!/)[!-~]+")
_TARGET = re.compile(r"(https?)://[^/?#]*([^#]*)", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_A_VALUE = re.compile(r"[^\t -~\x80-\xff]")


class Handle:
    """One easy handle of a session, used again and again. In the loop's thread alone."""

    __slots__ = (
        "_alone",
        "_connecting",
        "_lines",
        "_method",
        "_plain_get",
        "_proxy",
        "_session",
        "_targeted",
        "easy",
        "transfer",
    )

    def __init__(self, session: Session, share: Any, options: Options) -> None:
        self.transfer: Transfer | None = None
        self._session = session
        self._proxy = options.proxy
        self._alone = options.max_idle == 0
        self._connecting = (False, False)  # as libcurl has it by itself
        self._targeted = False
        self._plain_get = False
        self._method = ""  # whose body is sent from one piece of memory; empty: of another request
        self._lines: list[bytes] = []  # of HTTPHEADER
        self.easy: Any = pycurl.Curl()
        self.easy.finished = partial(session.finished, self)  # for `Multi.collect`
        set_to = self.easy.setopt
        set_to(pycurl.SHARE, share)
        set_to(pycurl.NOSIGNAL, 1)
        set_to(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        set_to(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        set_to(pycurl.PROXY, options.proxy)
        set_to(_SUPPRESS_CONNECT_HEADERS, 1)
        set_to(pycurl.NETRC, pycurl.NETRC_IGNORED)
        set_to(pycurl.PATH_AS_IS, 1)
        set_to(pycurl.FOLLOWLOCATION, 0)
        set_to(pycurl.HTTP_CONTENT_DECODING, 0)
        set_to(pycurl.USERAGENT, options.user_agent)
        set_to(pycurl.BUFFERSIZE, _RECEIVE_BUFFER_BYTES)
        set_to(pycurl.UPLOAD_BUFFERSIZE, _SEND_BUFFER_BYTES)
        set_to(pycurl.TCP_NODELAY, 1)
        set_to(pycurl.TCP_KEEPALIVE, 1)
        set_to(pycurl.CONNECTTIMEOUT_MS, max(1, round(options.timeouts.connect.total_seconds() * 1000)))
        set_to(pycurl.LOW_SPEED_LIMIT, LOW_SPEED_BYTES)
        set_to(pycurl.LOW_SPEED_TIME, max(1, round(options.timeouts.silence.total_seconds())))
        set_to(pycurl.MAXAGE_CONN, max(1, round(options.timeouts.idle.total_seconds())))
        set_to(pycurl.SSL_OPTIONS, pycurl.SSLOPT_NO_PARTIALCHAIN)
        if options.ca_file is not None:
            set_to(pycurl.CAINFO, str(options.ca_file))
        set_to(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        set_to(pycurl.PREREQFUNCTION, self._before_request)
        set_to(pycurl.HEADERFUNCTION, self._on_line)
        set_to(pycurl.WRITEFUNCTION, self._on_data)

    def load(self, transfer: Transfer) -> None:
        """Have it carry `transfer`. Raises InvalidRequest."""
        request, easy = transfer.request, self.easy
        lines = [*_header_lines(request), *request.lines]
        easy.setopt(pycurl.URL, request.url)
        self._set_target(request.url)
        if request.method == "GET" and request.body is None:
            if not self._plain_get:
                easy.unsetopt(pycurl.CUSTOMREQUEST)
                easy.setopt(pycurl.HTTPGET, 1)
            self._plain_get, self._method = True, ""
        else:
            self._plain_get = False
            self._set_method(request, lines)
        if lines != self._lines:
            if lines:
                easy.setopt(pycurl.HTTPHEADER, lines)
            else:
                easy.unsetopt(pycurl.HTTPHEADER)  # an empty list would leave those of the request before
            self._lines = lines
        connecting = (request.fresh or transfer.resubmitted, request.alone or self._alone)
        if connecting != self._connecting:
            easy.setopt(pycurl.FRESH_CONNECT, connecting[0])
            easy.setopt(pycurl.FORBID_REUSE, connecting[1])
            self._connecting = connecting
        transfer.opened = transfer.stale = False
        transfer.easy = easy
        self.transfer = transfer

    def _set_method(self, request: Request, lines: list[bytes]) -> None:
        """Of all but a plain GET. Adds to `lines`."""
        easy = self.easy
        method, self._method = self._method, ""
        if request.method == "HEAD":
            easy.unsetopt(pycurl.CUSTOMREQUEST)
            easy.setopt(pycurl.NOBODY, 1)
            return
        if isinstance(request.body, tuple):
            Pieces(request.body).attach(easy)
            easy.setopt(pycurl.CUSTOMREQUEST, request.method)
        else:
            if method != request.method:
                easy.setopt(pycurl.POST, 1)
                easy.setopt(pycurl.CUSTOMREQUEST, request.method)
            easy.setopt(pycurl.POSTFIELDS, request.body or b"")
            self._method = request.method
        for line in lines:
            if line[:13].lower() == b"content-type:":
                break
        else:
            lines.append(b"Content-Type:")
        lines.append(b"Expect:")

    def unload(self) -> None:
        """Keep nothing of the transfer: a handle may wait for the next one for a long time."""
        body = self.transfer.request.body if self.transfer is not None else None
        if isinstance(body, tuple):
            Pieces(()).attach(self.easy)
        elif body:
            self.easy.setopt(pycurl.POSTFIELDS, b"")
        self.transfer = None

    def close(self) -> None:
        self.transfer = None
        self.easy.finished = None
        self.easy.close()

    def unread(self) -> bytes | None:
        """What came after a response over TLS and was read along with it: OpenSSL reads ahead, and no poll of the
        socket tells. None: the connection has ended. Ask once the transfer is over, before `Multi.remove`."""
        self.easy.setopt(pycurl.CONNECT_ONLY, 1)  # or libcurl would not let us read
        try:
            came: bytes = self.easy.recv(64)
        except BlockingIOError:
            return b""
        except pycurl.error:
            return None
        finally:
            self.easy.setopt(pycurl.CONNECT_ONLY, 0)
        return came or None

    def _set_target(self, url: str) -> None:
        """Literally: libcurl writes `%2e` as `%2E`, and some CDNs sign the letters. All else it leaves as it is."""
        if self._proxy or "%" in url or self._targeted:  # which pycurl cannot unset
            self.easy.setopt(pycurl.REQUEST_TARGET, self._target(url))
            self._targeted = True

    def _target(self, url: str) -> str:
        found = _TARGET.match(url)
        assert found is not None, "the URL was checked"
        if self._proxy and found[1].lower() == "http":
            return url.partition("#")[0]  # absolute: RFC 9112, section 3.2.2
        return found[2] if found[2].startswith("/") else f"/{found[2]}"

    # -- called by libcurl ---------------------------------------------------------------------------------
    def _open_socket(self, _purpose: int, address: tuple[Any, ...]) -> Any:
        transfer = self.transfer
        assert transfer is not None
        family, kind, protocol, sockaddr = address
        try:
            if transfer.request.admits is not None:
                transfer.request.admits(str(sockaddr[0]))
            opened = _socket(family, kind, protocol)
        except BaseException as error:  # noqa: BLE001 - it is the transfer's
            transfer.error = error
            return pycurl.SOCKET_BAD
        transfer.opened = True
        self._session.close_soon(opened)  # what libcurl gets is a duplicate
        return opened

    def _before_request(self, peer: str, ours: str, peer_port: int, our_port: int) -> int:
        """The connection is there, new or kept; nothing was sent."""
        transfer = self.transfer
        assert transfer is not None
        if transfer.error is not None:  # an address that is not admitted was among the others
            return int(pycurl.PREREQFUNC_ABORT)
        try:
            again = transfer.name is not None  # libcurl sends it again: the kept connection had ended
            transfer.name = (peer, peer_port, ours, our_port)
            if transfer.opened:
                transfer.connection = None
                transfer.resubmitted |= again
            elif not self._session.takes(transfer, again=again):
                transfer.stale = True
                return int(pycurl.PREREQFUNC_ABORT)
            elif transfer.request.admits is not None:
                transfer.request.admits(peer)
        except BaseException as error:  # noqa: BLE001 - it is the transfer's
            transfer.error = error
            return int(pycurl.PREREQFUNC_ABORT)
        return int(pycurl.PREREQFUNC_OK)

    def _on_line(self, line: bytes) -> int | None:
        transfer = self.transfer
        assert transfer is not None
        if transfer.head is None and line != b"\r\n" and line != b"\n":  # eight of a response: in few steps
            transfer.answered = True
            transfer.lines.append(line)
            return None
        try:
            transfer.on_line(line)
        except BaseException as error:  # noqa: BLE001 - it is the transfer's
            transfer.error = error
            return -1
        return None

    def _on_data(self, chunk: bytes) -> int | None:
        transfer = self.transfer
        assert transfer is not None
        if transfer.append is not None:
            transfer.append(chunk)
            return None
        try:
            return None if transfer.on_data(chunk) else pycurl.WRITEFUNC_PAUSE
        except BaseException as error:  # noqa: BLE001 - it is the transfer's
            transfer.error = error
            return -1


def _socket(family: int, kind: int, protocol: int) -> socket.socket:
    """One that pycurl can duplicate: when it cannot, it does not say what it lacked."""
    opened = socket.socket(family, kind, protocol)
    try:
        os.close(os.dup(opened.fileno()))
    except BaseException:
        opened.close()
        raise
    return opened


def _header_lines(request: Request) -> list[bytes]:
    """Raises InvalidRequest, which holds nothing of the request."""
    if not _URL.fullmatch(request.url):
        raise InvalidRequest(
            "its address is not one of http or https, or holds a character that none may hold"
        )
    if not _TOKEN.fullmatch(request.method):
        raise InvalidRequest("its method is no HTTP method")
    return [_line(name, value) for name, value in request.headers.items()]


@lru_cache(maxsize=64)  # a tree asks for the same first range of every file
def _line(name: str, value: str) -> bytes:
    if not _TOKEN.fullmatch(name) or _NOT_IN_A_VALUE.search(value):
        raise InvalidRequest("it would hold a header that is no single line of HTTP")
    text = value.strip(" \t")
    return (f"{name}: {text}" if text else f"{name};").encode("latin-1")  # `;`: else it is left out
