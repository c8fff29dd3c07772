"""The whole product on real processes, against a simulated 100ms and a directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.harness import Harness, archiver, until
from tests.simulator.process import Simulator, running_simulator


class Archive(Harness):
    """The product against a simulator, archiving to a directory. `settings` are added to its environment."""

    def __init__(self, directory: Path, simulator: Simulator, **settings: str) -> None:
        self.simulator = simulator
        self.destination = directory / "archive"
        environment = {
            **simulator.environment,
            "ARCHIVER_DESTINATIONS": f"file://{self.destination}",
            "ARCHIVER_STATE_DIR": str(directory / "state"),
            "ARCHIVER_SWEEP_SECONDS": "2",
            "ARCHIVER_DISPATCH_SECONDS": "1",
            "ARCHIVER_LEASE_SECONDS": "3",
            "ARCHIVER_RETRY_BASE_SECONDS": "1",
            **settings,
        }
        super().__init__(directory, app="tests.chaos.quick_product", environment=environment)

    def archived(self) -> set[str]:
        """The assets that have a manifest."""
        return {path.stem for path in self.destination.glob("manifests/*/*/*/*.json")}

    def wait_archived(self, count: int, *, seconds: float) -> None:
        until(lambda: len(self.archived()) >= count, seconds=seconds, what=f"{count} manifests")

    def verify(self) -> None:
        """Every byte against its manifest, by the product's own command."""
        done = archiver(["verify", "--json"], self.environment)
        assert done.returncode == 0, done.stdout + done.stderr

    def wait_bytes_flow(self) -> None:
        """Until the source has begun to answer, slowly, for the object."""
        until(
            lambda: any(each["fired"] for each in self.simulator.faults()),
            seconds=100,
            what="a copy to begin",
        )


@contextmanager
def archive_of(directory: Path, set_name: str, **options: int | str) -> Iterator[Archive]:
    """`options` in capitals are settings of the product, the others are those of the simulator."""
    settings = {name: str(options.pop(name)) for name in [*options] if name.isupper()}
    with (
        running_simulator(set_name, **options) as simulator,
        Archive(directory, simulator, **settings) as archive,
    ):
        archive.start_control()
        archive.start_beat()
        yield archive
