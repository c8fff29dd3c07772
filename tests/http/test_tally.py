"""Counts of one process."""

from __future__ import annotations

import os

from archiver.http.loop import Loop
from archiver.http.multi import Multi
from archiver.http.options import Options
from archiver.http.session import Session
from archiver.http.tally import TALLY, Tally
from tests.http.serving import Client, Exchange, Transport, honest


def test_requests_are_counted_by_how_long_they_took() -> None:
    tally = Tally()

    for seconds in (0.001, 0.01, 0.3, 1000):
        tally.add_request("store", seconds)

    assert tally.take() == {
        "request_seconds:store:0.01": 2,
        "request_seconds:store:0.5": 1,
        "request_seconds:store:more": 1,
        "request_seconds:store:microseconds": 1_000_311_000,
    }
    assert tally.take() == {}


def test_a_child_does_not_count_what_its_parent_counted() -> None:
    TALLY.add("x")
    child = os.fork()
    if child == 0:
        os._exit(0 if not TALLY.take() else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert TALLY.take()["x"] == 1


def test_every_request_over_a_counted_session_is_counted_failed_ones_too(plain: Transport) -> None:
    loop = Loop("counted")
    session = Session(Multi(loop, "source"), Options())
    TALLY.take()
    with plain.server(honest, Exchange.reset) as server:
        Client(session).get(server)
        Client(session).fails(server, fresh=True)
    counts = TALLY.take()
    session.close()
    loop.stop()

    buckets = [count for name, count in counts.items() if not name.endswith(":microseconds")]
    assert sum(buckets) == 2
    assert all(name.startswith("request_seconds:source:") for name in counts)
