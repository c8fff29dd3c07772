from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A broker of this test's own, up, and nothing else."""
    with World(tmp_path) as world:
        yield world
