from __future__ import annotations

from collections.abc import Iterator

import pytest

from archiver.transfer.http import HttpClient
from tests.core.contents.origin import Origin, http_client


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
