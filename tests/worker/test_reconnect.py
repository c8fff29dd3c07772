"""What a broker that cannot write answers must lead to a new connection, not to the end of the process."""

from __future__ import annotations

import pytest
from celery import Celery
from redis import exceptions

from worker.celery_setup.config import celery_settings


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ReadOnlyError("You can't write against a read only replica."),
        exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        exceptions.ResponseError("MISCONF Valkey is configured to save RDB snapshots"),
        exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
        exceptions.MasterDownError("Link with MASTER is down"),
        exceptions.BusyLoadingError("LOADING"),
        exceptions.AuthenticationError("NOAUTH Authentication required."),
        exceptions.AuthenticationWrongNumberOfArgsError("AUTH"),
        exceptions.NoPermissionError("NOPERM"),
        exceptions.ConnectionError("closed"),
        exceptions.TimeoutError("silent"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_refusal_of_the_broker_is_one_that_the_worker_reconnects_after(error: Exception) -> None:
    with Celery(set_as_current=False) as app:
        app.conf.update(celery_settings(broker_url="redis://127.0.0.1:1/0", concurrency=1))
        connection = app.connection_for_read()

        assert app.conf.broker_channel_error_retry, "channel errors are recoverable too"
        assert isinstance(error, (*connection.connection_errors, *connection.channel_errors))
