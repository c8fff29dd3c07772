"""Runs as lines and as a table: medians, and ours divided by each peer.

Seconds are those after imports: of a Python client from its `measure.ready()`, of another from its start. Those of the
whole process stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.measure import Usage

OURS = "ours"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Run:
    job: str
    title: str
    setting: str
    sink: str
    client: str
    repeat: int
    size_bytes: int
    objects: int
    usage: Usage
    requests: Mapping[str, int]  # at the sink, by operation


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of a client on a sink. `whole_*`: of the process, its start and imports included."""

    client: str
    sink: str
    objects: int
    wall_seconds: float
    cpu_seconds: float
    whole_wall_seconds: float
    whole_cpu_seconds: float
    peak_rss_mib: float
    runs: int

    @property
    def objects_per_second(self) -> float:
        return self.objects / self.wall_seconds

    @property
    def cpu_seconds_per_object(self) -> float:
        return self.cpu_seconds / self.objects


def line(run: Run) -> str:
    usage = run.usage
    wall = usage.job_wall_seconds
    return (
        f"{run.job:3} {run.setting:9} {run.sink:4} {run.client:15} {wall:7.2f} s {usage.job_cpu_seconds:7.2f} CPU-s"
        f" (whole {usage.wall_seconds:7.2f} s {usage.cpu_seconds:7.2f} CPU-s) {usage.peak_rss_mib:5.0f} MiB "
        f" {run.size_bytes / MIB / wall:6.0f} MiB/s {run.objects / wall:7.1f} objects/s"
    )


def rows(runs: Sequence[Run], job: str, setting: str) -> list[Row]:
    """Medians by sink and client, ours first."""
    chosen = [run for run in runs if (run.job, run.setting) == (job, setting)]
    found = []
    for sink, client in dict.fromkeys(
        (run.sink, run.client)
        for run in sorted(chosen, key=lambda run: (run.sink != "s3", run.client != OURS))
    ):
        of_client = [run for run in chosen if (run.sink, run.client) == (sink, client)]
        usages = [run.usage for run in of_client]
        found.append(
            Row(
                client,
                sink,
                of_client[0].objects,
                median(usage.job_wall_seconds for usage in usages),
                median(usage.job_cpu_seconds for usage in usages),
                median(usage.wall_seconds for usage in usages),
                median(usage.cpu_seconds for usage in usages),
                median(usage.peak_rss_mib for usage in usages),
                len(usages),
            )
        )
    return found


def summary(runs: Sequence[Run], job: str, setting: str) -> str:
    """A table a sink, and ours against the best peer."""
    return "\n".join(_tables(rows(runs, job, setting), f"{job} {setting}"))


def _tables(all_rows: Sequence[Row], heading: str) -> Iterator[str]:
    for sink in dict.fromkeys(row.sink for row in all_rows):
        table = [row for row in all_rows if row.sink == sink]
        ours = next((row for row in table if row.client == OURS), None)
        yield f"\n{heading} to {sink}: medians after imports, of the whole process in brackets; ours divided by each"
        for row in table:
            yield (
                f"  {row.client:15} {row.wall_seconds:7.2f} s {row.cpu_seconds:7.2f} CPU-s"
                f" ({row.whole_wall_seconds:.2f} s {row.whole_cpu_seconds:.2f} CPU-s) {row.peak_rss_mib:5.0f} MiB"
                f" {row.objects_per_second:7.1f} objects/s {row.cpu_seconds_per_object * 1000:8.3f} ms CPU an object"
                f"  n={row.runs}" + ("" if ours is None or ours is row else f"   {_ratios(ours, row)}")
            )
        peers = [row for row in table if row is not ours]
        if ours is not None and peers:
            fastest = min(peers, key=lambda row: row.wall_seconds)
            leanest = min(peers, key=lambda row: row.cpu_seconds)
            yield (
                f"  against the best peer: wall × {ours.wall_seconds / fastest.wall_seconds:.2f} ({fastest.client}), "
                f"CPU × {ours.cpu_seconds / leanest.cpu_seconds:.2f} ({leanest.client})"
            )
    ours_by_sink = {row.sink: row for row in all_rows if row.client == OURS}
    if {"s3", "gcs"} <= ours_by_sink.keys():
        yield f"  ours to gcs divided by ours to s3: {_ratios(ours_by_sink['gcs'], ours_by_sink['s3'])}"
    yield ""


def _ratios(ours: Row, other: Row) -> str:
    return (
        f"objects/s × {ours.objects_per_second / other.objects_per_second:.2f},"
        f" CPU an object × {ours.cpu_seconds_per_object / other.cpu_seconds_per_object:.2f},"
        f" wall × {ours.wall_seconds / other.wall_seconds:.2f}"
    )
