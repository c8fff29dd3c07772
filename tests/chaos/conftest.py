from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.harness import Harness


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """A broker of this test's own, up, and nothing else."""
    with Harness(tmp_path) as harness:
        yield harness
