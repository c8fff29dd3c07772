"""libcurl's multi handle, driven by a loop."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Any

import pycurl

from archiver.http.loop import READ, WRITE, Loop

_MAX_CONNECTIONS = 100_000  # sessions bound what they keep; libcurl would close others than we think


class Multi:
    """Transfers of any number of sessions. In its loop's thread, but for `loop`."""

    def __init__(self, loop: Loop, target: str = "") -> None:
        """`target`: what its requests are counted as (`archiver.http.tally`); empty: not at all."""
        self.loop = loop
        self.target = target
        self.due: float | None = None
        self._multi: Any = None

    def add(self, easy: Any) -> None:
        if self._multi is None:
            multi = pycurl.CurlMulti()
            multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
            multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
            multi.setopt(pycurl.M_MAXCONNECTS, _MAX_CONNECTIONS)
            self._multi = multi
            self.loop.keep_after_fork(multi)
            self.loop.drive(self)
        self._multi.add_handle(easy)

    def remove(self, easy: Any) -> None:
        self._multi.remove_handle(easy)

    # -- driven by the loop --------------------------------------------------------------------------------
    def ready(self, fd: int, events: int) -> None:
        what = (pycurl.CSELECT_IN if events & ~WRITE else 0) | (pycurl.CSELECT_OUT if events & ~READ else 0)
        self._multi.socket_action(fd, what)

    def timeout(self) -> None:
        self.due = None
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def collect(self) -> None:
        left = 1
        while left:
            left, succeeded, failed = self._multi.info_read()
            for easy in succeeded:
                self.loop.call(partial(easy.finished, None))
            for easy, code, words in failed:
                self.loop.call(partial(easy.finished, (code, words)))

    # -- called by libcurl ---------------------------------------------------------------------------------
    def _on_socket(self, event: int, fd: int, _multi: object, _data: object) -> None:
        events = (READ if event & pycurl.POLL_IN else 0) | (WRITE if event & pycurl.POLL_OUT else 0)
        if event == pycurl.POLL_REMOVE:
            self.loop.park(fd)
        elif not events:
            self.loop.unwatch(fd)
        else:
            self.loop.watch(self, fd, events)

    def _on_timer(self, milliseconds: int) -> None:
        self.due = None if milliseconds < 0 else monotonic() + milliseconds / 1000
