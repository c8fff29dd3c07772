from collections.abc import Iterator

import pytest
from botocore.retries.standard import ExponentialBackoff

from tests.servers import (  # noqa: F401 # fixtures
    gcs_server,
    ministack_server,
    moto_server,
    rclone_server,
    rclone_tls_server,
)


@pytest.fixture(scope="session", autouse=True)
def _boto3_retries_without_waiting() -> Iterator[None]:
    """boto3 takes no clock; five attempts at a server that answers 500 would take 10 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)
        yield
