"""`archiver replicate` beside `rclone copy`: `python -m benchmarks.replicate`.

Two local S3 servers (rclone's, in Go), over TLS unless --plain; each client fills the empty bucket of the second from
that of the first. Ours starts with an empty ledger, so that it lists both, and its time includes starting Python and an
embedded Valkey; it compares each byte with the manifest and commits. rclone compares MD5s where it has them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.restore import Job, Server, archived, rclone_program, s3_server

_MIB = 2**20
_TIMEOUT_SECONDS = 900.0
_LONG_AGO = datetime.now(UTC) - timedelta(days=100)
"""So that the source of the assets has ended."""


@dataclass(frozen=True, slots=True)
class Pair:
    source: Server
    target: Server
    folder: Path  # of the target's data


Command = Callable[[Pair, Path], tuple[list[str], Mapping[str, str]]]


def _ours(pair: Pair, state: Path) -> tuple[list[str], Mapping[str, str]]:
    urls = [f"s3://bucket?endpoint_url={each.url}&region=us-east-1" for each in (pair.source, pair.target)]
    environment = {"ARCHIVER_DESTINATIONS": ",".join(urls), "ARCHIVER_STATE_DIR": str(state)}
    return [sys.executable, "-m", "worker.cli", "replicate", "--to", urls[1], "--json"], environment


def _rclone(pair: Pair, _: Path) -> tuple[list[str], Mapping[str, str]]:
    command = [rclone_program(), "copy", "one:bucket/recordings", "two:bucket/recordings", "--stats", "0"]
    command += ["--transfers", "8", "--checkers", "8", "--multi-thread-streams", "8", "--config", os.devnull]
    environment: dict[str, str] = {}
    for name, server in (("ONE", pair.source), ("TWO", pair.target)):
        options = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": server.url, "ENV_AUTH": "true"}
        environment |= {f"RCLONE_CONFIG_{name}_{key}": value for key, value in options.items()}
    if pair.source.ca_file:
        environment["RCLONE_CA_CERT"] = ",".join(
            str(each.ca_file) for each in (pair.source, pair.target) if each.ca_file
        )
    return command, environment


CLIENTS: Mapping[str, Command] = {"ours": _ours, "rclone copy": _rclone}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="replicate-", dir=options.folder) as made:
        folder = Path(made)
        for number, (name, count, size) in enumerate(
            [("one file", 1, options.file_mib * _MIB), ("an HLS tree", options.segments, 250 * 1024)]
        ):
            if count:
                _measure(folder / str(number), name, count, size, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--file-mib", type=int, default=1024, help="size of the one file")
    parser.add_argument(
        "--segments", type=int, default=3000, help="objects of 250 KiB in the tree; 0: no tree"
    )
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument(
        "--folder", help="where everything is written; default: the system's temporary folder"
    )
    return parser.parse_args()


def _measure(folder: Path, name: str, count: int, size_bytes: int, options: argparse.Namespace) -> None:
    (folder / "one/data/bucket").mkdir(parents=True)
    job = archived(folder / "one/data/bucket", name, count, size_bytes, _LONG_AGO)
    tls = not options.plain
    taken: dict[str, list[tuple[float, float]]] = {client: [] for client in CLIENTS}
    with s3_server(folder / "one", tls=tls) as source:
        for client, command in [*CLIENTS.items()] * options.rounds:
            two = folder / "two"  # a new server for each: this one remembers what it served
            shutil.rmtree(two, ignore_errors=True)
            (two / "data/bucket").mkdir(parents=True)
            with s3_server(two, tls=tls) as target:
                pair = Pair(_trusting(source, target, folder), target, two / "data/bucket")
                taken[client].append(_run(command, job, pair, folder / "state"))
    _print(job, taken, tls=tls)


def _trusting(source: Server, target: Server, folder: Path) -> Server:
    """Both authorities in one file, which AWS_CA_BUNDLE names."""
    if source.ca_file is None or target.ca_file is None:
        return source
    both = folder / "both.pem"
    both.write_bytes(source.ca_file.read_bytes() + target.ca_file.read_bytes())
    return Server(source.url, both)


def _run(command: Command, job: Job, pair: Pair, state: Path) -> tuple[float, float]:
    """Return seconds and CPU-seconds of the client."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    arguments, environment = command(pair, state)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        arguments,
        env={**pair.source.environment, **environment},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=_TIMEOUT_SECONDS,
    )
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    there = sum(path.stat().st_size for path in pair.folder.rglob("*.ts"))
    if there != job.size_bytes:
        raise RuntimeError(f"{there} bytes are there, not {job.size_bytes}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _print(job: Job, taken: Mapping[str, list[tuple[float, float]]], *, tls: bool) -> None:
    medians = {
        name: tuple(statistics.median(each) for each in zip(*runs, strict=True))
        for name, runs in taken.items()
    }
    for name, (seconds, cpu) in medians.items():
        row = {
            "job": job.name,
            "tls": tls,
            "client": name,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu, 2),
            "mb_per_second": round(job.size_bytes / seconds / 1e6, 1),
            "of_ours": round(seconds / medians["ours"][0], 2),
        }
        print(json.dumps(row))  # noqa: T201


if __name__ == "__main__":
    main()
