from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from archiver.hms.auth import ManagementToken, TokenProvider
from archiver.hms.client import HmsClient
from archiver.hms.transport import Timeouts
from archiver.retry_policy import API_CALL
from tests.hms.fake_time import FakeTime
from tests.hms.scripted_api import Script, ScriptedApi, scripted_api

Talk = Callable[..., tuple[HmsClient, ScriptedApi]]

ACCESS_KEY = "access-key-of-the-tests"
SECRET = SecretStr("app-secret-of-the-tests-0123456789-0123456789")


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def talk(time: FakeTime) -> Iterator[Talk]:
    """A client and the scripted server it talks to."""
    with ExitStack() as stack:

        def start(
            script: Script,
            tokens: TokenProvider | None = None,
            read: timedelta = timedelta(seconds=5),
            attempts: int = 5,
        ) -> tuple[HmsClient, ScriptedApi]:
            server = stack.enter_context(scripted_api(script))
            client = HmsClient(
                server.url,
                tokens or ManagementToken(ACCESS_KEY, SECRET),
                policy=replace(API_CALL, attempts=attempts),
                timeouts=Timeouts(read=read),
                clock=time.now,
                monotonic=time.monotonic,
                sleep=time.sleep,
                chance=lambda: 0.5,
            )
            return stack.enter_context(client), server

        yield start
