"""libcurl's multi handle, driven by a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pycurl

from archiver.http.loop import READ, WRITE, Loop

if TYPE_CHECKING:
    from archiver.http.session import Session


class Multi:
    """Transfers of any number of sessions. In its loop's thread, but for `loop`."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.due: float | None = None
        self._multi: Any = None
        self.idle: dict[int, Session] = {}  # whose connection it is, by file descriptor

    def add(self, easy: Any) -> None:
        if self._multi is None:
            self._multi = pycurl.CurlMulti()
            self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
            self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
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
        while True:
            left, succeeded, failed = self._multi.info_read()
            for easy in succeeded:
                easy.session.finished(easy, None)
            for easy, code, words in failed:
                easy.session.finished(easy, (code, words))
            if not left:
                return

    # -- called by libcurl ---------------------------------------------------------------------------------
    def _on_socket(self, event: int, fd: int, _multi: object, _data: object) -> None:
        if (session := self.idle.pop(fd, None)) is not None:
            session.took(fd)
        events = (READ if event & pycurl.POLL_IN else 0) | (WRITE if event & pycurl.POLL_OUT else 0)
        if event == pycurl.POLL_REMOVE or not events:
            self.loop.unwatch(fd)
        else:
            self.loop.watch(self, fd, events)

    def _on_timer(self, milliseconds: int) -> None:
        self.due = None if milliseconds < 0 else self.loop.now() + milliseconds / 1000
