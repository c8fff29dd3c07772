"""Translate libcurl's result codes to our errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from typing import Any

import pycurl

from archiver.http.errors import (
    BrokenOff,
    CertificateRejected,
    CouldNotConnect,
    InvalidRequest,
    InvalidResponse,
    TooLong,
    TooSlow,
)
from archiver.http.options import LOW_SPEED_BYTES, Options

BROKEN = frozenset({pycurl.E_PARTIAL_FILE, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR, pycurl.E_GOT_NOTHING})
"""The connection ended."""

_OUR_MACHINE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EIO}
)
"""No fault of the other side: too few file handles, too little memory, a full disk."""
_CERTIFICATE = frozenset({pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT})
_CONNECTING: Mapping[int, str] = {
    pycurl.E_COULDNT_CONNECT: "the connection failed",
    pycurl.E_COULDNT_RESOLVE_HOST: "its name does not resolve",
    pycurl.E_COULDNT_RESOLVE_PROXY: "the proxy's name does not resolve",
    pycurl.E_SSL_CONNECT_ERROR: "the TLS handshake failed",
}
_INVALID: Mapping[int, str] = {
    pycurl.E_UNSUPPORTED_PROTOCOL: "what came is not an HTTP/1.x response",
    pycurl.E_FTP_WEIRD_SERVER_REPLY: "the head of the response is malformed",
    pycurl.E_BAD_CONTENT_ENCODING: "the response has a transfer encoding other than chunked",
}
_VERDICT = re.compile(
    r"(?:SSL certificate problem|SSL certificate OpenSSL verify result|SSL): *(.+?)(?: \([0-9]+\))?\.?"
)


def failure(easy: Any, code: int, words: str, options: Options, *, connected: bool) -> Exception:
    """What libcurl's `code` means. `words`: its message, which names a host at most. `connected`: the request was about
    to be sent, at least."""
    number = easy.getinfo(pycurl.OS_ERRNO)
    if number in _OUR_MACHINE:
        return OSError(number, os.strerror(number))
    if code == pycurl.E_OUT_OF_MEMORY:
        return MemoryError()
    if code in _CERTIFICATE:
        return CertificateRejected(_reason(words))
    if code == pycurl.E_SSL_CACERT_BADFILE:
        return CertificateRejected(f"the file of trusted authorities cannot be read: {options.ca_file}")
    if code == pycurl.E_OPERATION_TIMEDOUT:
        if connected:
            seconds = options.timeouts.silence.total_seconds()
            return TooSlow(f"less than {LOW_SPEED_BYTES} bytes a second came for {seconds:g} s")
        return CouldNotConnect(f"no connection within {options.timeouts.connect.total_seconds():g} s")
    if code in _CONNECTING or (code in BROKEN and not connected):
        reason = os.strerror(number) if number else _reason(words)
        what = _CONNECTING.get(code, "the connection failed")
        return CouldNotConnect(what if code == pycurl.E_COULDNT_RESOLVE_HOST else f"{what} ({reason})")
    if code == pycurl.E_GOT_NOTHING:
        return BrokenOff("the connection was closed before a response")
    if code == pycurl.E_RECV_ERROR and "chunk" in words.lower():
        return InvalidResponse("a chunk of the response's body is malformed")
    if code in BROKEN:
        return BrokenOff("the connection was closed before the end of the response")
    if code == pycurl.E_FILESIZE_EXCEEDED:
        return TooLong("the response is longer than was expected")
    if not connected:
        return InvalidRequest(f"the address cannot be requested (libcurl error {code})")
    return InvalidResponse(_INVALID.get(code, f"the response is not well-formed (libcurl error {code})"))


def _reason(words: str) -> str:
    """OpenSSL's part of libcurl's message."""
    found = _VERDICT.fullmatch(words)
    return found[1] if found else words or "no reason is known"
