"""Options of a session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

LOW_SPEED_BYTES = 1024
"""A second. Less, for as long as `Timeouts.silence`, counts as a stall: a GiB would take 12 days."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect: timedelta = timedelta(seconds=10)  # for the name, TCP and TLS together
    silence: timedelta = timedelta(seconds=30)
    """With less than the low-speed limit. Whole seconds, at least one."""
    idle: timedelta = timedelta(seconds=15)
    """Of a connection: one unused for longer is not trusted. S3 closes it at 20."""


@dataclass(frozen=True, slots=True)
class Options:
    """`ca_file`: the authorities that are trusted, in PEM; None: libcurl's own, for plain HTTP. `proxy`: an address, or
    empty for none: the environment's is never used by itself. `max_idle`: connections kept for later requests; 0: every
    request is `alone` on its own."""

    ca_file: Path | None = None
    timeouts: Timeouts = Timeouts()
    user_agent: str = "recording-archiver"
    proxy: str = ""
    max_idle: int = 64
