from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.archiving.contents.origin import Origin, http_client
from transfer.http import HttpClient


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with http_client() as made:
        yield made


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin({}) as started:
        yield started


@pytest.fixture
def elsewhere() -> Iterator[Origin]:
    """A second origin: the same host, another port."""
    with Origin({}) as started:
        yield started
