"""A resolver that never answers: lookups end with the connect limit, and hold up nothing else.

The resolver is the system's, so the child lives in a mount namespace with a resolv.conf of its own.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest

from archiver.http.direct import DirectSessions
from archiver.http.errors import CouldNotConnect
from archiver.http.loop import Loop
from archiver.http.multi import Multi
from archiver.http.options import Options, Timeouts
from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import complete
from tests.http.serving import Server

LOOKUPS = 40  # more than libcurl has threads for
_NAMESERVER = "127.0.0.77"
_IN_NAMESPACE = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


def test_lookups_that_are_never_answered_end_in_time_and_hold_up_nothing_else(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {_NAMESERVER}\noptions timeout:30 attempts:5\n")
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no `unshare` here, which gives a process a resolver of its own")
    in_namespace = [unshare, "--mount", "sh", "-c", _IN_NAMESPACE, "sh", str(resolver)]
    if subprocess.run([*in_namespace, "true"], capture_output=True, timeout=30).returncode:
        pytest.skip("mount namespaces need root: /etc/resolv.conf cannot be replaced for one process")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((_NAMESERVER, 53))

        child = [sys.executable, "-m", "tests.http.test_hanging_resolver"]
        ended = subprocess.run([*in_namespace, *child], capture_output=True, text=True, timeout=60)

        assert ended.returncode == 0, ended.stderr
        asked = silent.recv(512)
    found = json.loads(ended.stdout)
    assert b"\x07example" in asked, "the lookups reached the silent resolver"
    assert found["meanwhile"] == ["hello"] * 5
    assert found["failed"] == ["no connection within 2 s"] * LOOKUPS
    assert found["afterwards"] == "hello"
    assert found["directly"] == ["no connection within 2 s", "cancelled"]


def main() -> None:
    loop = Loop("tested")
    session = Session(Multi(loop), Options(timeouts=Timeouts(connect=timedelta(seconds=2))))

    async def get(url: str) -> str:
        transfer = await Transfer(session, Request(url))
        return transfer.take_body().decode()

    failed: list[str] = []

    def look_up(number: int) -> None:
        try:
            complete(get(f"http://host{number}.example/"))
        except CouldNotConnect as error:
            failed.append(str(error))

    lookups = [Thread(target=look_up, args=(number,)) for number in range(LOOKUPS)]
    with Server() as server:
        for lookup in lookups:
            lookup.start()
        meanwhile = [complete(get(server.url)) for _ in range(5)]
        for lookup in lookups:
            lookup.join()
        afterwards = complete(get(server.url))
        session.close()
        loop.stop()
    found = {"meanwhile": meanwhile, "failed": failed, "afterwards": afterwards, "directly": directly()}
    print(json.dumps(found))  # noqa: T201


def directly() -> list[str]:
    """How requests end that their own thread carries."""

    class Cancelled(Exception):
        pass

    def cancel() -> None:
        raise Cancelled("cancelled")

    sessions = DirectSessions(Options(timeouts=Timeouts(connect=timedelta(seconds=2))))
    ends: list[str] = []
    for check in (lambda: None, cancel):
        try:
            with sessions.session() as session:
                session.get(Request("http://direct.example/"), 1, check)
        except (CouldNotConnect, Cancelled) as error:
            ends.append(str(error))
    sessions.close()
    return ends


if __name__ == "__main__":
    main()
