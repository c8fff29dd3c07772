"""Small uploads are sent by the thread that reads sources, everything else about a store by another."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from archiver.http.options import Options
from archiver.http.runtime import process_runtime
from archiver.http.session import Session
from archiver.http.store_sessions import SMALL_BYTES, StoreSessions

WAIT_SECONDS = 20


@pytest.fixture
def sessions() -> Iterator[StoreSessions]:
    sessions = StoreSessions(Options())
    yield sessions
    sessions.close()


def thread_of(session: Session) -> threading.Thread:
    """Where requests of `session` are driven."""
    found: list[threading.Thread] = []
    done = threading.Event()

    def note() -> None:
        found.append(threading.current_thread())
        done.set()

    session.in_loop(note)
    assert done.wait(WAIT_SECONDS)
    return found[0]


@pytest.mark.parametrize("size_bytes", [0, 1, 250 * 1024, SMALL_BYTES])
def test_a_small_upload_is_sent_by_the_thread_that_reads_sources(
    sessions: StoreSessions, size_bytes: int
) -> None:
    sources = Session(process_runtime().sources)

    assert thread_of(sessions.sending(size_bytes)) is thread_of(sources)


@pytest.mark.parametrize("size_bytes", [SMALL_BYTES + 1, 5 * 2**20])
def test_a_large_upload_is_sent_by_another(sessions: StoreSessions, size_bytes: int) -> None:
    sources = Session(process_runtime().sources)

    assert thread_of(sessions.sending(size_bytes)) is not thread_of(sources)
    assert sessions.sending(size_bytes) is sessions.reading


def test_the_two_never_share_a_connection(sessions: StoreSessions) -> None:
    assert sessions.sending(SMALL_BYTES) is not sessions.reading
