"""Ports for what listens on this machine."""

from __future__ import annotations

import socket

from worker.embedded.errors import StartFailed
from worker.embedded.valkey import LOOPBACK


def free_port(address: str, wanted: int, who: str, setting: str) -> int:
    """Return `wanted`, or any free port when it is 0 or taken. Raises StartFailed, naming the `setting`, for an address
    that is not of this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in (wanted, 0):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise StartFailed(
        f"{who} cannot listen on {address!r}: it is not an address of this machine ({setting})."
    )


def url_of(address: str, port: int) -> str:
    """Return the URL by which this machine reaches what listens on `address`."""
    shown = LOOPBACK if address in ("", "0.0.0.0", "::") else address  # noqa: S104 (shown, not bound)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
