"""`archiver serve` as a process, and its listeners inside of a test."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp

from tests.walkthrough.user import User, until
from worker.serve.listener import Listener, listen

SECRET = "CANARY-webhook-secret"
HEADER = "X-Archiver-Secret"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True)
class Serving:
    """A running `archiver serve`."""

    process: Popen[bytes]
    url: str
    metrics_url: str

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, trust_env=False)

    def post(self, event: Any, secret: str = SECRET) -> httpx.Response:
        headers = {HEADER: secret}
        return httpx.post(
            f"{self.url}/webhooks/100ms", json=event, headers=headers, timeout=30, trust_env=False
        )

    def samples(self) -> Samples:
        return samples(httpx.get(self.metrics_url, timeout=30, trust_env=False).text)


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextlib.contextmanager
def serving(user: User, **settings: str) -> Iterator[Serving]:
    """Interrupted at the end, as by Ctrl-C."""
    more = {
        "ARCHIVER_SERVE_PORT": "0",
        "ARCHIVER_METRICS_PORT": "0",
        "ARCHIVER_WEBHOOK_SECRET": SECRET,
        "COLUMNS": "300",
        **settings,
    }
    out: Path = user.folder / "out.txt"
    with user.starts("serve", **more) as process:

        def addresses() -> list[str]:
            assert process.poll() is None, out.read_text()
            return re.findall(r"^(?:Health|Metrics).*?(http://\S+)$", out.read_text(), re.MULTILINE)

        until(lambda: len(addresses()) >= 2, seconds=60, what="`archiver serve` to say where it listens")
        url, metrics_url = addresses()[-2:]
        yield Serving(process, url, metrics_url)


@contextlib.contextmanager
def listening(app: ASGIApp) -> Iterator[Listener]:
    """`app` behind our listener, in a thread."""
    with listen("127.0.0.1", 0, "ARCHIVER_SERVE") as sock:
        listener = Listener(app, sock)
        thread = threading.Thread(target=lambda: asyncio.run(listener.run_until_stopped()))
        thread.start()
        try:
            yield listener
        finally:
            listener.should_exit = True
            thread.join()
