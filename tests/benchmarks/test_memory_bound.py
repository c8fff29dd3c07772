"""What a worker process takes while it copies: its engine, its stores' clients and its imports, seen from outside."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import measure
from benchmarks.clients import Task, environment, stdin_of
from benchmarks.content import write_pattern
from benchmarks.measure import Usage
from benchmarks.serving import Serving, ask, started
from benchmarks.workloads import JOBS

MIB = 2**20


@dataclass(frozen=True)
class Copied:
    usage: Usage
    objects: int
    stored_bytes: int


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "pattern"
    write_pattern(path)
    return path


def copied(job_name: str, pattern: Path, scale: float = 1.0) -> Copied:
    with pattern.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        with_pattern = memoryview(mapped)
        job = JOBS[job_name](scale, with_pattern)
        with_pattern.release()
    source = Serving("source", "raw", str(pattern), scale, (job_name,))
    with started(source) as source_port, started(Serving("s3", "raw", str(pattern))) as sink_port:
        sink_url = f"http://127.0.0.1:{sink_port}"
        task = Task.of(job, f"http://127.0.0.1:{source_port}", sink_url, None)
        command = [sys.executable, "-m", "benchmarks.ours"]
        usage = measure.run(command, environment(task), stdin_of(task), timeout_seconds=240)
        stored = ask(f"{sink_url}/-/report", None)["objects"].values()
    return Copied(usage, len(stored), sum(one["size_bytes"] for one in stored))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "gibibytes", [pytest.param(0.5), pytest.param(8, marks=pytest.mark.chaos)], ids=["half a GiB", "8 GiB"]
)
def test_a_large_file_of_any_size_passes_through_256_mib(pattern: Path, gibibytes: float) -> None:
    result = copied("A8", pattern, gibibytes / 8)

    assert result.stored_bytes == gibibytes * 1024 * MIB
    assert result.usage.peak_rss_mib <= 256


@pytest.mark.timeout(300)
def test_a_zip_of_large_members_passes_through_256_mib(pattern: Path) -> None:
    """What is read ahead counts like what is sent."""
    result = copied("E25", pattern, scale=0.5)

    assert result.objects == 20 + 2
    assert result.usage.peak_rss_mib <= 256


@pytest.mark.timeout(300)
def test_a_tree_of_large_segments_passes_through_256_mib(pattern: Path) -> None:
    """More connections than a large file has, each with a full buffer of its own beside the bodies."""
    result = copied("C1M", pattern, scale=0.4)

    assert result.objects == 4 * 153 + 4 + 1
    assert result.usage.peak_rss_mib <= 256


@pytest.mark.timeout(300)
@pytest.mark.chaos
def test_21600_segments_pass_through_150_mib(pattern: Path) -> None:
    """A quarter of 12 hours, for the sake of time. All 86,400 stay within 200 (`python -m benchmarks --jobs C12`)."""
    result = copied("C12", pattern, scale=1 / 4)

    assert result.objects == 21_600 + 5
    assert result.usage.peak_rss_mib <= 150


def test_a_tree_passes_through_200_mib(pattern: Path) -> None:
    result = copied("C", pattern, scale=0.1)

    assert result.objects == 600 + 4 + 1
    assert result.usage.peak_rss_mib <= 200
