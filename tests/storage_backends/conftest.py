from collections.abc import Iterator
from functools import lru_cache

import pytest
from botocore.loaders import create_loader
from botocore.retries.standard import ExponentialBackoff

from tests.servers import (  # noqa: F401 # fixtures
    azurite_server,
    enforcing_server,
    gcs_server,
    ministack_server,
    moto_server,
    rclone_server,
    rclone_tls_server,
)


@pytest.fixture(scope="session", autouse=True)
def _quick_boto3() -> Iterator[None]:
    """boto3 takes no clock, and five attempts at a server that answers 500 would take 10 s. It also reads its models
    again for each of the hundreds of sessions here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
        patch.setattr("botocore.session.create_loader", lru_cache(create_loader))
        yield
