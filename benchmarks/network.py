"""The network of real life, imitated inside the source and the sink: latency, a cap a connection, a cap in all.

What it is: an answer is held back by one round trip; a new connection costs one more, TLS one more again; bytes pass in
pieces, each as late as the connection's rate and the direction's share of the link say. What it is not: no loss, no
slow start, no queueing. It is the same for every client, and needs no privileges, which a kernel's netem does.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

PIECE_BYTES = 128 * 1024  # 6 ms at 20 MB/s: small beside a part, large beside the cost of waking up
_CATCH_UP_SECONDS = 0.01  # a sleep that took too long is made up for, an idle minute is not


@dataclass(frozen=True, slots=True)
class Network:
    """`connection_rate` and `link_rate` in bytes a second; None: as fast as the machine."""

    latency_seconds: float = 0.0
    connection_rate: float | None = None
    link_rate: float | None = None

    @property
    def paced(self) -> bool:
        return self.connection_rate is not None or self.link_rate is not None


RAW = Network()
# a CDN's or S3's cap for one connection, a worker's usual share of a machine's link (performance.md)
LIFE = Network(latency_seconds=0.020, connection_rate=20e6, link_rate=250e6)
NETWORKS = {"raw": RAW, "life": LIFE}


class Link:
    """Something of a given rate that bytes pass one after the other. Safe from several threads."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def passed_at(self, size_bytes: int) -> float:
        """Return when `size_bytes` handed over now will have passed (monotonic seconds)."""
        if self._rate is None:
            return 0.0
        with self._lock:
            start = max(self._free_at, time.monotonic() - _CATCH_UP_SECONDS)
            self._free_at = start + size_bytes / self._rate
            return self._free_at


class Pacer:
    """One connection's use of a link."""

    def __init__(self, network: Network, link: Link) -> None:
        self._latency = network.latency_seconds
        self._paced = network.paced
        self._own = Link(network.connection_rate)
        self._link = link

    @property
    def piece_bytes(self) -> int:
        return PIECE_BYTES if self._paced else 1024 * 1024

    def round_trip(self) -> None:
        if self._latency:
            time.sleep(self._latency)

    def pass_on(self, size_bytes: int) -> None:
        """Wait until `size_bytes` more have passed."""
        if not self._paced:
            return
        wait = max(self._own.passed_at(size_bytes), self._link.passed_at(size_bytes)) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
