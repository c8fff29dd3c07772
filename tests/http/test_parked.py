"""A kept connection stays with the system's poller, which costs less than to take it out and put it back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from archiver.http.loop import READ, Loop

WAIT_SECONDS = 20


class Watching:
    """Driven by a loop; tells what was ready."""

    due: float | None = None

    def __init__(self) -> None:
        self.ready_fds: list[int] = []
        self.told = threading.Event()

    def ready(self, fd: int, events: int) -> None:
        os.read(fd, 100)
        self.ready_fds.append(fd)
        self.told.set()

    def timeout(self) -> None:
        return

    def collect(self) -> None:
        return


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop("test")
    yield loop
    loop.stop()


def done(loop: Loop) -> None:
    """Until the loop has done what was asked before, and has looked at its descriptors since."""
    for _ in range(2):
        passed = threading.Event()
        loop.call_soon(passed.set)
        assert passed.wait(WAIT_SECONDS)


def test_what_comes_while_it_is_parked_is_told_to_nobody(loop: Loop) -> None:
    driven, (reader, writer) = Watching(), os.pipe()
    loop.call_soon(lambda: loop.watch(driven, reader, READ))
    loop.call_soon(lambda: loop.park(reader))
    done(loop)
    os.write(writer, b"unasked")
    done(loop)

    assert driven.ready_fds == []
    os.close(reader)
    os.close(writer)


def test_it_is_watched_again(loop: Loop) -> None:
    driven, (reader, writer) = Watching(), os.pipe()
    loop.call_soon(lambda: loop.watch(driven, reader, READ))
    loop.call_soon(lambda: loop.park(reader))
    loop.call_soon(lambda: loop.watch(driven, reader, READ))
    os.write(writer, b"asked")

    assert driven.told.wait(WAIT_SECONDS)
    loop.call_soon(lambda: loop.unwatch(reader))
    done(loop)
    os.close(reader)
    os.close(writer)


def test_another_one_that_got_its_number_is_watched(loop: Loop) -> None:
    """libcurl closes descriptors without a word; its resolver opens some that no callback tells of."""
    driven, (reader, writer) = Watching(), os.pipe()
    loop.call_soon(lambda: loop.watch(driven, reader, READ))
    loop.call_soon(lambda: loop.park(reader))
    done(loop)
    other_reader, other_writer = os.pipe()
    os.close(writer)
    os.close(reader)
    os.dup2(other_reader, reader)
    loop.call_soon(lambda: loop.watch(driven, reader, READ))
    os.write(other_writer, b"asked")

    assert driven.told.wait(WAIT_SECONDS)
    loop.call_soon(lambda: loop.unwatch(reader))
    done(loop)
    for fd in (reader, other_reader, other_writer):
        os.close(fd)
