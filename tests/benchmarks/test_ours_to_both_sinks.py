"""The archiver's column of the benchmarks: it copies a job whole to both kinds of sink."""

from __future__ import annotations

import mmap
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import measure
from benchmarks.clients import Task, environment, stdin_of
from benchmarks.content import write_pattern
from benchmarks.serving import Serving, ask, started
from benchmarks.workloads import JOBS


@pytest.mark.parametrize("sink", ["s3", "gcs"])
@pytest.mark.parametrize(
    ("says", "job_name", "scale"),
    [
        ("a tree of small files", "C", 0.002),
        ("a file of many parts, the last not a multiple of 256 KiB", "A1", 0.0301),
        ("small files alone", "D", 0.005),
    ],
)
def test_every_object_arrives_with_its_checksum(
    says: str, job_name: str, scale: float, sink: str, tmp_path: Path
) -> None:
    path = tmp_path / "pattern"
    write_pattern(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        job = JOBS[job_name](scale, view)
        expected = Counter((body.size_bytes, body.crc32c(view)) for body in job.arriving.values())
        view.release()
    source = Serving("source", "raw", str(path), scale, (job_name,))
    with (
        started(source) as source_port,
        started(Serving(sink, "raw", str(path), verify=True)) as sink_port,
    ):
        sink_url = f"http://127.0.0.1:{sink_port}"
        task = Task.of(job, f"http://127.0.0.1:{source_port}", sink_url, None, sink=sink)
        command = [sys.executable, "-m", "benchmarks.ours"]
        measure.run(command, environment(task), stdin_of(task), timeout_seconds=60)
        stored = ask(f"{sink_url}/-/report", None)["objects"].values()

    assert Counter((one["size_bytes"], one["crc32c"]) for one in stored) == expected, says
