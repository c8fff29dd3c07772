"""A command in a terminal: what a person sees on the screen."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.servers import program

_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-B0-2])")


@dataclass
class Terminal:
    """`shown`: all that was ever written, without escapes."""

    process: subprocess.Popen[bytes]
    _master: int
    _raw: bytearray = field(default_factory=bytearray)

    @property
    def shown(self) -> str:
        text = self._raw.decode(errors="replace")
        return _ESCAPES.sub("", text).replace("\r\n", "\n")

    def wait_for(self, words: str, *, seconds: float) -> None:
        end = time.monotonic() + seconds
        while words not in self.shown:
            assert time.monotonic() < end, f"{words!r} was not shown in {seconds:g} s, but:\n{self.shown}"
            if not self._read():
                assert words in self.shown, f"{words!r} was never shown, but:\n{self.shown}"

    def types(self, line: str) -> None:
        """A line, and Enter."""
        os.write(self._master, f"{line}\r".encode())

    def types_hidden(self, line: str, *, seconds: float) -> None:
        """A line where nothing is echoed, as soon as that is so."""
        end = time.monotonic() + seconds
        while termios.tcgetattr(self._master)[3] & termios.ECHO:
            assert time.monotonic() < end, f"it still echoes after {seconds:g} s:\n{self.shown}"
            self._read()
        self.types(line)

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.write(self._master, b"\x03")

    def interrupt_prompt(self, *, seconds: float) -> int:
        """Ctrl-C at a prompt, again after five quiet seconds; returns the exit code. CPython's `input()` loses a signal
        that comes after it has shown the prompt and before it waits: 1 in 250 to 800, pressed at once."""
        end = time.monotonic() + seconds
        self.interrupt()
        pressed = time.monotonic()
        while self._read():
            assert time.monotonic() < end, f"it did not end in {seconds:g} s:\n{self.shown}"
            if time.monotonic() > pressed + 5:
                self.interrupt()
                pressed = time.monotonic()
        return self.process.wait(timeout=10)

    def wait(self, *, seconds: float) -> int:
        """The exit code, once it has ended."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, f"it did not end in {seconds:g} s:\n{self.shown}"
        return self.process.wait(timeout=10)

    def _read(self) -> bool:
        """Return whether there may be more."""
        if not select.select([self._master], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # how Linux says that the other end is closed
                return False
            raise
        self._raw += data
        return bool(data)


@contextlib.contextmanager
def in_terminal(
    arguments: Sequence[str],
    *,
    folder: Path,
    env: dict[str, str],
    columns: int = 80,
    lines: int = 50,
    in_background: bool = False,
) -> Iterator[Terminal]:
    """`archiver` with these arguments in a terminal of this size; killed at the end if it still runs. `in_background`:
    it starts with SIGINT ignored, as a shell without job control starts `archiver ... &`."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, master)
        process = subprocess.Popen(
            [program("archiver"), *arguments],
            cwd=folder,
            env={**env, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=partial(_start, in_background),  # noqa: PLW1509 # three system calls
        )
        os.close(slave)
        try:
            yield Terminal(process, master)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)


def _start(in_background: bool) -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches it
    signal.signal(signal.SIGINT, signal.SIG_IGN if in_background else signal.SIG_DFL)
