"""Requests over one set of connections that are shared with nobody else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pycurl

from archiver.http.connections import Connection, Connections
from archiver.http.errors import BrokenOff, HttpError, InvalidResponse
from archiver.http.failures import BROKEN, failure
from archiver.http.handle import Handle
from archiver.http.multi import Multi
from archiver.http.options import Options
from archiver.http.tally import TALLY
from archiver.http.transfer import Transfer


class Session:
    """Safe to use from several threads: everything happens in the loop's. Of one process: see `Loop`.

    Its connections lie in a share of libcurl's, one for each session of a multi handle: so that they are never used by
    another session, while TLS sessions and the parsed authorities are known to all.

    A kept connection may end just as it is used. A request that nothing was received for is then sent again, by us or
    by libcurl, and `Transfer.resubmitted` says so: the server may have seen it twice. Whoever cannot bear that asks
    for a `fresh` connection, over which nothing is sent twice.
    """

    def __init__(self, multi: Multi, options: Options = Options()) -> None:  # noqa: B008 - frozen
        self._multi = multi
        self._options = options
        self._share: Any = None
        self._connections = Connections(options.max_idle, options.timeouts.idle.total_seconds())
        self._spare: list[Handle] = []
        self._active: dict[Transfer, Handle] = {}
        self._closed = False
        multi.loop.keep_after_fork(self)

    # -- from any thread -----------------------------------------------------------------------------------
    def submit(self, transfer: Transfer) -> None:
        self._multi.loop.call_soon(partial(self._begin, transfer))

    def cancel(self, transfer: Transfer) -> None:
        """End it now, and its connection with it. Idempotent."""
        self._multi.loop.call_soon(partial(self._end, transfer, HttpError("it was cancelled")))

    def unpause(self, transfer: Transfer) -> None:
        self._multi.loop.call_soon(partial(self._unpause, transfer))

    def close(self) -> None:
        """End all transfers and connections. Idempotent. After a fork the parent's are not touched."""
        if not self._multi.loop.orphaned:
            self._multi.loop.call_soon(self._close)

    def in_loop(self, action: Callable[[], None]) -> None:
        """Have `action` called in the loop's thread: at once, where that is this one."""
        if self._multi.loop.is_current:
            action()
        else:
            self._multi.loop.call_soon(action)

    def condition(self) -> threading.Condition:
        """As `Loop.condition`."""
        return self._multi.loop.condition()

    @property
    def is_idle(self) -> bool:
        return not self._active

    # -- in the loop's thread ------------------------------------------------------------------------------
    def _begin(self, transfer: Transfer) -> None:
        if transfer.done:  # cancelled before it was begun
            transfer.finish(transfer.error)
            return
        if self._closed:
            transfer.finish(HttpError("the session is closed"))
            return
        handle = None
        try:
            self._connections.check_idle()
            handle = self._spare.pop() if self._spare else self._new_handle()
            handle.load(transfer)
            self._multi.add(handle.easy)
        except BaseException as error:  # noqa: BLE001 - it is the transfer's, whatever it is
            if handle is not None:
                handle.close()
            transfer.finish(error)
            return
        self._active[transfer] = handle

    def _new_handle(self) -> Handle:
        if self._share is None:
            share = pycurl.CurlShare()
            share.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_CONNECT)
            share.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_DNS)
            self._share = share
            self._multi.loop.keep_after_fork(share)
        return Handle(self, self._share, self._options)

    def _unpause(self, transfer: Transfer) -> None:
        if transfer not in self._active:
            return
        easy: Any = transfer.easy
        try:
            easy.pause(pycurl.PAUSE_CONT)  # which may hand over what is waiting, and fail in doing so
        except pycurl.error as error:
            code, words = error.args
            self._end(transfer, transfer.error or self._failure(easy, transfer, code, words))

    def _close(self) -> None:
        self._closed = True
        for transfer in list(self._active):
            self._end(transfer, HttpError("the session is closed"))
        for handle in self._spare:
            handle.close()
        self._spare.clear()
        if self._share is not None:
            self._share.close()
            self._share = None

    def _end(self, transfer: Transfer, error: BaseException) -> None:
        handle = self._active.get(transfer)
        if handle is not None:
            self._put_back(transfer, handle)
        transfer.finish(error)

    def _put_back(self, transfer: Transfer, handle: Handle) -> None:
        del self._active[transfer]
        self._multi.remove(handle.easy)
        if self._closed:
            handle.close()
        else:
            handle.unload()
            self._spare.append(handle)

    def finished(self, handle: Handle, failed: tuple[int, str] | None) -> None:
        """libcurl is done with the transfer of `handle`. `failed`: a result code, and words."""
        transfer = handle.transfer
        assert transfer is not None
        if failed is not None and _may_be_sent_again(transfer, failed[0]):
            self._put_back(transfer, handle)
            transfer.reset()
            transfer.resubmitted = True
            self._begin(transfer)
            return
        if self._multi.target:
            TALLY.add_request(self._multi.target, handle.easy.getinfo(pycurl.TOTAL_TIME_T) / 1e6)
        error = transfer.error
        if error is None and failed is not None:
            error = self._failure(handle.easy, transfer, *failed)
        if error is None and transfer.head is None:
            error = BrokenOff("the connection was closed before the end of the response's head")
        if transfer.head is not None:
            early = error is None and self._answered_early(handle, transfer)
            if early:
                error = InvalidResponse("the response came before the request was sent")
            self._account(handle, transfer, suspicious=early, ended=error is not None)
        self._put_back(transfer, handle)
        transfer.finish(error)

    def _failure(self, easy: Any, transfer: Transfer, code: int, words: str) -> Exception:
        return failure(easy, code, words, self._options, connected=transfer.name is not None)

    def _answered_early(self, handle: Handle, transfer: Transfer) -> bool:
        """Return whether a success answers a request that was not sent to its end yet: it is another's."""
        body_bytes, easy = transfer.request.body_bytes, handle.easy
        if not body_bytes or transfer.status >= 300:
            return False
        began, sent = easy.getinfo(pycurl.STARTTRANSFER_TIME_T), easy.getinfo(pycurl.POSTTRANSFER_TIME_T)
        if transfer.resubmitted:  # then libcurl tells when the first response began
            began = sent
        return bool(began < sent) or easy.getinfo(pycurl.SIZE_UPLOAD_T) < body_bytes

    def _account(self, handle: Handle, transfer: Transfer, *, suspicious: bool, ended: bool) -> None:
        """Note what the connection brought, and whether it may be used again."""
        easy, head, request = handle.easy, transfer.head, transfer.request
        assert head is not None
        fd = easy.getinfo(pycurl.ACTIVESOCKET)
        tls = request.url[:6].lower() == "https:"
        unread = handle.unread() if tls and fd >= 0 else b""
        connection = transfer.connection
        if connection is None:  # a new one
            connection = Connection(tls=tls)
        self._connections.served(connection, transfer.name, fd)
        transfer.connection, transfer.ordinal = connection, connection.served
        reusable = head.persistent and head.framed and not head.ambiguous
        if fd < 0:
            # libcurl closes what it could keep when more came than the response
            alone = request.alone or not self._options.max_idle
            suspicious |= reusable and not (ended or alone or transfer.overtaken or _refused(transfer))
        elif unread or unread is None or not reusable or head.chunked:
            # of what comes with the last chunk libcurl says nothing: so nothing follows on it
            self._connections.shut_down(connection)
        if suspicious or unread:
            connection.tainted = True

    # -- for the handle, within libcurl's callbacks ----------------------------------------------------------
    def takes(self, transfer: Transfer, *, again: bool) -> bool:
        """Whether `transfer` may be sent over the kept connection that libcurl chose for it. `again`: after one that
        had ended; no other is trusted then."""
        name = transfer.name
        assert name is not None
        connection = transfer.connection = None if again else self._connections.take(name)
        if connection is not None:
            self._multi.loop.reuse(connection.fd)
            return True
        for other in self._active:
            if other is not transfer and other.name == name:  # it ended just now, and was not looked at yet
                other.overtaken = True
        return False

    def close_soon(self, opened: socket.socket) -> None:
        self._multi.loop.call_soon(opened.close)


def _may_be_sent_again(transfer: Transfer, code: int) -> bool:
    """Once, over a new connection, when the kept one had ended or may not be used."""
    if transfer.resubmitted or transfer.error is not None:
        return False
    return transfer.stale or (code in BROKEN and not transfer.opened and not transfer.answered)


def _refused(transfer: Transfer) -> bool:
    """Return whether the server may have ended the connection because it did not read all of the request."""
    return bool(transfer.request.body_bytes) and transfer.status >= 300
