from collections.abc import Iterator
from functools import lru_cache

import pytest
from botocore.loaders import create_loader

from tests.killed.fork_server import ForkServer
from tests.killed.fork_server import fork_server as started
from tests.servers import azurite_server, gcs_server, ministack_server, rclone_server  # noqa: F401
from tests.valkey import redis_url, shared_valkey  # noqa: F401 # fixtures


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with started(tmp_path_factory.mktemp("fork_server")) as made:
        yield made


@pytest.fixture(scope="session", autouse=True)
def _quick_boto3() -> Iterator[None]:
    """boto3 reads its models again for each session, and each test here opens two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", lru_cache(create_loader))
        yield
