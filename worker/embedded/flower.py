"""Where Flower listens and which password it has."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from worker.embedded.ports import free_port, url_of
from worker.embedded.valkey import LOOPBACK, write_private
from worker.settings.group import is_loopback

DEFAULT_FLOWER_PORT = 5555


@dataclass(frozen=True, slots=True)
class FlowerOptions:
    """`port` 0, or one that is taken, means any free port. Outside loopback Flower always has a password: `basic_auth`
    (user:password), or one that is generated and kept in the state directory."""

    address: str = LOOPBACK
    port: int = DEFAULT_FLOWER_PORT
    basic_auth: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Flower:
    """What Flower is started with. `password_file` holds a generated password as user:password."""

    address: str
    port: int
    environment: dict[str, str] = field(repr=False)
    password_file: Path | None = None

    @property
    def url(self) -> str:
        return url_of(self.address, self.port)


def prepare_flower(options: FlowerOptions, state_dir: Path) -> Flower:
    """Find a free port and, where one is needed, a password. Raises StartFailed."""
    port = free_port(options.address, options.port, "Flower", "ARCHIVER_FLOWER_ADDRESS")
    if options.basic_auth is not None:
        return Flower(options.address, port, {"FLOWER_BASIC_AUTH": options.basic_auth})
    if is_loopback(options.address):
        # Without this the API answers 401, although the pages show the same. Only this machine can ask, and Flower is
        # read-only.
        return Flower(options.address, port, {"FLOWER_UNAUTHENTICATED_API": "true"})
    file = state_dir / "flower.password"
    try:
        auth = file.read_text().strip()
    except FileNotFoundError:
        auth = f"archiver:{secrets.token_urlsafe(16)}"
        write_private(file, f"{auth}\n")
    return Flower(options.address, port, {"FLOWER_BASIC_AUTH": auth}, file)
