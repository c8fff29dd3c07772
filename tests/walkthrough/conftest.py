from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import (  # noqa: F401 # fixtures
    azurite_server,
    enforcing_server,
    gcs_server,
    ministack_server,
    moto_server,
    rclone_server,
)
from tests.simulator.process import Simulator, running_simulator
from tests.valkey import redis_url, shared_valkey  # noqa: F401 # fixtures
from tests.walkthrough.user import User, user_of


@pytest.fixture(scope="session")
def demo_simulator() -> Iterator[Simulator]:
    """Every type of asset. Shared: add no asset and leave no fault behind."""
    with running_simulator("demo") as simulator:
        yield simulator


@pytest.fixture
def simulator(demo_simulator: Simulator) -> Simulator:
    demo_simulator.clear_faults()
    demo_simulator.clear_requests()
    return demo_simulator


@pytest.fixture
def empty_simulator() -> Iterator[Simulator]:
    """This test's own, to add assets to."""
    with running_simulator("empty") as simulator:
        yield simulator


@pytest.fixture
def user(tmp_path: Path, simulator: Simulator, redis_url: str) -> User:  # noqa: F811 # the fixture
    return user_of(tmp_path, simulator, redis_url)
