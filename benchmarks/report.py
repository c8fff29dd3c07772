"""Runs as lines and as a table: medians, and the ratio of ours to the best peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    client: str
    repeat: int
    size_bytes: int
    objects: int
    usage: Usage
    requests: Mapping[str, int]  # at the sink, by operation


@dataclass(frozen=True, slots=True)
class Row:
    client: str
    wall_seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    runs: int


def line(run: Run) -> str:
    usage = run.usage
    wall = usage.job_wall_seconds
    return (
        f"{run.job:3} {run.setting:9} {run.client:15} {wall:7.2f} s {usage.job_cpu_seconds:7.2f} CPU-s"
        f" {usage.peak_rss_mib:6.0f} MiB  {run.size_bytes / MIB / wall:6.0f} MiB/s"
        f" {run.objects / wall:6.0f} objects/s"
    )


def rows(runs: Sequence[Run], job: str, setting: str) -> list[Row]:
    """Medians by client, ours first."""
    chosen = [run for run in runs if (run.job, run.setting) == (job, setting)]
    found = []
    for client in dict.fromkeys(run.client for run in sorted(chosen, key=lambda run: run.client != OURS)):
        usages = [run.usage for run in chosen if run.client == client]
        found.append(
            Row(
                client,
                median(usage.job_wall_seconds for usage in usages),
                median(usage.job_cpu_seconds for usage in usages),
                median(usage.peak_rss_mib for usage in usages),
                len(usages),
            )
        )
    return found


def show(runs: Sequence[Run], job: str, setting: str) -> None:
    table = rows(runs, job, setting)
    ours = next((row for row in table if row.client == OURS), None)
    _say(f"\n{job} {setting}: medians; ours divided by each")
    for row in table:
        ratios = ""
        if ours is not None and row is not ours:
            wall, cpu = ours.wall_seconds / row.wall_seconds, ours.cpu_seconds / row.cpu_seconds
            ratios = f"   wall × {wall:.2f}, CPU × {cpu:.2f}"
        _say(
            f"  {row.client:15} {row.wall_seconds:7.2f} s {row.cpu_seconds:7.2f} CPU-s {row.peak_rss_mib:6.0f} MiB"
            f"  n={row.runs}{ratios}"
        )
    peers = [row for row in table if row is not ours]
    if ours is not None and peers:
        fastest = min(peers, key=lambda row: row.wall_seconds)
        leanest = min(peers, key=lambda row: row.cpu_seconds)
        _say(
            f"  against the best peer: wall × {ours.wall_seconds / fastest.wall_seconds:.2f} ({fastest.client}), "
            f"CPU × {ours.cpu_seconds / leanest.cpu_seconds:.2f} ({leanest.client})"
        )
    _say("")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command-line program
