from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from archiver.http.loop import Loop
from archiver.http.multi import Multi
from archiver.http.options import Options, Timeouts
from archiver.http.session import Session
from tests.http.serving import Client, Transport


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    made = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    return made, path


@pytest.fixture(scope="session")
def serving_tls(authority: tuple[trustme.CA, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("127.0.0.1", "::1", "storage.example").configure_cert(context)
    return context


@pytest.fixture(params=["plain", "tls"])
def over(
    request: pytest.FixtureRequest, authority: tuple[trustme.CA, Path], serving_tls: ssl.SSLContext
) -> Transport:
    return Transport(request.param, serving_tls if request.param == "tls" else None, authority[1])


@pytest.fixture
def tls(authority: tuple[trustme.CA, Path], serving_tls: ssl.SSLContext) -> Transport:
    return Transport("tls", serving_tls, authority[1])


@pytest.fixture
def plain(authority: tuple[trustme.CA, Path]) -> Transport:
    return Transport("plain", None, authority[1])


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    made = Loop("tested")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def multi(loop: Loop) -> Multi:
    return Multi(loop)


@pytest.fixture
def new_client(multi: Multi, authority: tuple[trustme.CA, Path]) -> Iterator[Callable[..., Client]]:
    """Clients, each with connections of its own."""
    made: list[Session] = []

    def make(**options: Any) -> Client:
        timeouts = Timeouts(
            **{
                name: timedelta(seconds=options.pop(name))
                for name in ("connect", "silence", "idle")
                if name in options
            }
        )
        made.append(Session(multi, Options(ca_file=authority[1], timeouts=timeouts, **options)))
        return Client(made[-1])

    yield make
    for session in made:
        session.close()


@pytest.fixture
def client(new_client: Callable[..., Client]) -> Client:
    return new_client()
