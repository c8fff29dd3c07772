"""Where `archiver serve` listens under the supervisor."""

from __future__ import annotations

from dataclasses import dataclass

from worker.embedded.ports import free_port, url_of
from worker.embedded.valkey import LOOPBACK


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """A port that is 0, or taken, means any free one."""

    address: str = LOOPBACK
    port: int = 0
    metrics_address: str = LOOPBACK
    metrics_port: int = 0

    def resolved(self) -> ServeOptions:
        """Return the options with free ports. Raises StartFailed."""
        return ServeOptions(
            self.address,
            free_port(self.address, self.port, "`archiver serve`", "ARCHIVER_SERVE_ADDRESS"),
            self.metrics_address,
            free_port(
                self.metrics_address, self.metrics_port, "`archiver serve`", "ARCHIVER_METRICS_ADDRESS"
            ),
        )

    @property
    def url(self) -> str:
        return url_of(self.address, self.port)

    @property
    def metrics_url(self) -> str:
        return f"{url_of(self.metrics_address, self.metrics_port)}/metrics"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ARCHIVER_SERVE_ADDRESS": self.address,
            "ARCHIVER_SERVE_PORT": str(self.port),
            "ARCHIVER_METRICS_ADDRESS": self.metrics_address,
            "ARCHIVER_METRICS_PORT": str(self.metrics_port),
        }
