"""A kept connection stays with the system's poller, which costs less than to take it out and put it back."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from archiver.http import loop as loop_module
from archiver.http.loop import READ, WRITE, Loop

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

    def rest(self) -> None:
        self.due = None

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


def test_a_reused_one_is_watched_without_asking_the_system_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven, (reader, writer) = Watching(), os.pipe()
    loop.call_soon(lambda: loop.watch(driven, reader, READ))
    loop.call_soon(lambda: loop.park(reader))
    done(loop)
    monkeypatch.setattr(loop_module._Poller, "watch", refuse)

    def reuse() -> None:
        loop.reuse(reader)
        loop.watch(driven, reader, READ)

    loop.call_soon(reuse)
    done(loop)  # what comes while it is parked ends it
    os.write(writer, b"asked")

    assert driven.told.wait(WAIT_SECONDS)
    monkeypatch.undo()
    loop.call_soon(lambda: loop.unwatch(reader))
    done(loop)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("again", ["for other events", "in a later call", "never parked"])
def test_what_the_system_may_not_watch_is_told_to_it(loop: Loop, again: str) -> None:
    """It was open when it was to be reused; by the next call of libcurl another may have its number."""
    first, second = Watching(), Watching()
    ours, theirs = socket.socketpair()
    watched_for = WRITE if again == "for other events" else READ

    def begin() -> None:
        if again != "never parked":
            loop.watch(first, ours.fileno(), watched_for)
            loop.park(ours.fileno())
        loop.reuse(ours.fileno())

    replacement, other = socket.socketpair()

    def later() -> None:
        if again == "in a later call":  # the system forgets what is closed
            os.dup2(replacement.fileno(), ours.fileno())
        loop.watch(second, ours.fileno(), READ)

    def due_and_later() -> None:
        begin()
        if again == "in a later call":
            loop._run_due()
        later()

    first.due = 0.0
    loop.call_soon(lambda: loop.drive(first))
    loop.call_soon(due_and_later)
    (other if again == "in a later call" else theirs).send(b"asked")

    assert second.told.wait(WAIT_SECONDS)
    loop.call_soon(lambda: loop.unwatch(ours.fileno()))
    loop.call_soon(first.rest)
    done(loop)
    for sock in (ours, theirs, replacement, other):
        sock.close()


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("the system watches it already")
