"""For one file per command: a user whose 100ms has no assets but those that the test adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.simulator.process import Simulator
from tests.storage_backends.side_doors import FileSideDoor
from tests.walkthrough.stored import manifests
from tests.walkthrough.user import User, user_of


@pytest.fixture
def user(tmp_path: Path, empty_simulator: Simulator, redis_url: str) -> User:
    return user_of(tmp_path, empty_simulator, redis_url)


@pytest.fixture
def archived(user: User, empty_simulator: Simulator) -> dict[str, Any]:
    """The manifest of an archived composite."""
    asset = empty_simulator.add_asset("composite")
    user.runs_once()
    return manifests(FileSideDoor(user.folder / "archive"))[asset["id"]]
