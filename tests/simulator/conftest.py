from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from tests.simulator.process import Simulator, running_simulator


@pytest.fixture(scope="session")
def _demo() -> Iterator[Simulator]:
    with running_simulator("demo") as simulator:
        yield simulator


@pytest.fixture(scope="session")
def _scratch() -> Iterator[Simulator]:
    with running_simulator("empty") as simulator:
        yield simulator


@pytest.fixture
def simulator(_demo: Simulator) -> Iterator[Simulator]:
    """The demo set, without faults and with an empty log. Nobody adds assets to it or turns its clock forward."""
    yield _demo
    _tidy(_demo)


@pytest.fixture
def scratch(_scratch: Simulator) -> Iterator[Simulator]:
    """Like `simulator`, to add assets to. Whoever counts its assets starts one of their own."""
    yield _scratch
    _tidy(_scratch)


def _tidy(simulator: Simulator) -> None:
    simulator.clear_faults()
    simulator.clear_requests()
    simulator.skew_api_clock(timedelta(0))


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """Follows no redirect and keeps no more than was sent."""
    nobody_trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # spares reading the system's authorities
    with httpx.Client(timeout=20.0, trust_env=False, verify=nobody_trusted) as client:
        yield client
