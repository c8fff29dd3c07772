from collections.abc import Iterator

import pytest

from tests.killed.nursery import Nursery
from tests.killed.nursery import nursery as born
from tests.servers import gcs_server, ministack_server, rclone_server  # noqa: F401 # fixtures
from tests.valkey import redis_url, shared_valkey  # noqa: F401 # fixtures


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with born(tmp_path_factory.mktemp("nursery")) as made:
        yield made
