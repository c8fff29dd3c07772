from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from archiver.core.destinations import probing
from archiver.core.records.manifest import Manifest
from tests.manifest_schema import assert_valid

# Else every process of pytest-xdist rewrites the assertions of every file anew: 11 s of CPU each.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure() -> None:
    """Children inherit which signals are ignored: `nohup` ignores SIGHUP, and a shell SIGINT for what runs in the
    background."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_probe_was_left() -> None:
    """This process remembers the stores that kept a probe by their names, which many tests use."""
    probing._left.clear()


@pytest.fixture(scope="session", autouse=True)
def _every_manifest_is_as_its_published_schema_says() -> Iterator[None]:
    """Those that this process writes; tests/walkthrough/stored.py checks those of other processes."""
    to_bytes = Manifest.to_bytes

    def checked(self: Manifest) -> bytes:
        data = to_bytes(self)
        assert_valid(json.loads(data))
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Manifest, "to_bytes", checked)
        yield
