from collections.abc import Iterator
from functools import lru_cache

import pytest
from botocore.loaders import create_loader

from tests.killed.nursery import Nursery
from tests.killed.nursery import nursery as born
from tests.servers import gcs_server, ministack_server, rclone_server  # noqa: F401 # fixtures
from tests.valkey import redis_url, shared_valkey  # noqa: F401 # fixtures


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with born(tmp_path_factory.mktemp("nursery")) as made:
        yield made


@pytest.fixture(scope="session", autouse=True)
def _quick_boto3() -> Iterator[None]:
    """boto3 reads its models again for each session, and each test here opens two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", lru_cache(create_loader))
        yield
