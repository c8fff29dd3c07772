"""Flower's address and password."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from worker.embedded.ports import free_port, url_of
from worker.embedded.valkey import LOOPBACK, write_private
from worker.settings import Settings
from worker.settings.group import is_loopback

DEFAULT_FLOWER_PORT = 5555
URL_FILE = "flower.url"
"""In the state directory while Flower runs: its port may be another than the one that was asked for."""


@dataclass(frozen=True, slots=True)
class FlowerOptions:
    """`port` 0, or one that is taken, means any free port. Outside loopback Flower always has a password: `basic_auth`
    (user:password), or one that is generated and kept in the state directory."""

    address: str = LOOPBACK
    port: int = DEFAULT_FLOWER_PORT
    basic_auth: str | None = field(default=None, repr=False)
    url_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Flower:
    """What Flower is started with. `password_file` holds a generated password as user:password."""

    address: str
    port: int
    environment: dict[str, str] = field(repr=False)
    password_file: Path | None = None
    url_prefix: str = ""

    @property
    def url(self) -> str:
        return url_of(self.address, self.port) + self.url_prefix


def prepare_flower(options: FlowerOptions, state_dir: Path) -> Flower:
    """Find a free port and, where one is needed, a password. Raises StartFailed."""
    port = free_port(options.address, options.port, "Flower", "ARCHIVER_FLOWER_ADDRESS")
    environment, password_file = _login(options, state_dir)
    if options.url_prefix:
        environment["FLOWER_URL_PREFIX"] = options.url_prefix
    found = Flower(options.address, port, environment, password_file, options.url_prefix)
    write_private(state_dir / URL_FILE, f"{found.url}\n")
    return found


def flower_url(settings: Settings) -> str | None:
    """Return the URL of the Flower that `archiver up` runs with this state directory, else the one that the settings
    give; None while any free port will do."""
    with suppress(OSError, UnicodeDecodeError):
        if running := (settings.state_dir / URL_FILE).read_text().strip():
            return running
    if not settings.flower_port:
        return None
    return url_of(settings.flower_address, settings.flower_port) + (settings.flower_url_prefix or "")


def forget_flower_url(state_dir: Path) -> None:
    """Call when Flower was stopped. Idempotent."""
    (state_dir / URL_FILE).unlink(missing_ok=True)


def _login(options: FlowerOptions, state_dir: Path) -> tuple[dict[str, str], Path | None]:
    """Return Flower's environment, and the file of a generated password."""
    if options.basic_auth is not None:
        return {"FLOWER_BASIC_AUTH": options.basic_auth}, None
    if is_loopback(options.address):
        # Without this the API answers 401, although the pages show the same. Only this machine can ask, and Flower is
        # read-only.
        return {"FLOWER_UNAUTHENTICATED_API": "true"}, None
    file = state_dir / "flower.password"
    try:
        auth = file.read_text().strip()
    except FileNotFoundError:
        auth = f"archiver:{secrets.token_urlsafe(16)}"
        write_private(file, f"{auth}\n")
    return {"FLOWER_BASIC_AUTH": auth}, file
