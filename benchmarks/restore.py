"""`archiver restore` beside `rclone copy` and `aws s3 sync`: `python -m benchmarks.restore`.

One local S3 server (rclone's, in Go), over TLS unless --plain; every client restores once, then all again, to an empty
folder. Ours compares each byte with the manifest and flushes each file to the disk; the others do neither. Peers that
are not on PATH are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

from archiver.core.records import keys
from archiver.core.records.manifest import ManifestObject, new_manifest
from archiver.hms.models import Asset
from archiver.transfer.checksums import crc32c

_MIB = 2**20
_KEYS = ("benchmarkkey", "benchmarksecret")
_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Job:
    """An asset in the bucket."""

    name: str
    asset_id: str
    folder: str
    size_bytes: int
    objects: int


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    ca_file: Path | None

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": _KEYS[0],
            "AWS_SECRET_ACCESS_KEY": _KEYS[1],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "ARCHIVER_DESTINATIONS": f"s3://bucket?endpoint_url={self.url}&region=us-east-1",
            **({"AWS_CA_BUNDLE": str(self.ca_file)} if self.ca_file else {}),
        }


Command = Callable[[Job, Server, Path], list[str]]


def _ours(job: Job, _: Server, folder: Path) -> list[str]:
    return [sys.executable, "-m", "worker.cli", "restore", job.asset_id, str(folder)]


def _rclone(job: Job, server: Server, folder: Path) -> list[str]:
    command = [rclone_program(), "copy", f":s3:bucket/{job.folder}", str(folder), "--config", os.devnull]
    command += ["--s3-provider", "Other", "--s3-endpoint", server.url, "--s3-env-auth", "--stats", "0"]
    command += [
        "--s3-region",
        "us-east-1",
        "--transfers",
        "8",
        "--multi-thread-streams",
        "8",
        "--checkers",
        "8",
    ]
    return command + (["--ca-cert", str(server.ca_file)] if server.ca_file else [])


def _aws(job: Job, server: Server, folder: Path) -> list[str]:
    command = ["aws", "s3", "sync", f"s3://bucket/{job.folder}", str(folder)]
    return [*command, "--endpoint-url", server.url, "--only-show-errors"]


def rclone_program() -> str:
    beside = Path(sys.executable).parent / "rclone"
    return str(beside) if beside.exists() else shutil.which("rclone") or "rclone"


CLIENTS: Mapping[str, Command] = {"ours": _ours, "rclone copy": _rclone, "aws s3 sync": _aws}


def main() -> None:
    options = _options()
    clients = {
        name: command for name, command in CLIENTS.items() if name != "aws s3 sync" or shutil.which("aws")
    }
    with tempfile.TemporaryDirectory(prefix="restore-", dir=options.folder) as made:
        folder = Path(made)
        jobs = [
            archived(folder / "data/bucket", "one file", 1, options.file_mib * _MIB),
            archived(folder / "data/bucket", "an HLS tree", options.segments, 250 * 1024),
        ]
        with s3_server(folder, tls=not options.plain) as server:
            for job in jobs:
                taken: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
                for _ in range(options.rounds):
                    for name, command in clients.items():
                        taken[name].append(_run(command, job, server, folder / "out"))
                _print(job, taken, tls=not options.plain)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--file-mib", type=int, default=1024, help="size of the one file")
    parser.add_argument("--segments", type=int, default=3000, help="objects of 250 KiB in the tree")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument(
        "--folder", help="where everything is written; default: the system's temporary folder"
    )
    return parser.parse_args()


def archived(root: Path, name: str, count: int, size_bytes: int, created_at: datetime | None = None) -> Job:
    """Write an asset of `count` objects to the bucket at `root`, as a worker archives one."""
    asset_id = f"{count:024x}"
    described = {"id": asset_id, "type": "room-vod", "room_id": "r", "session_id": "s"}
    asset = Asset.parse(described | ({"created_at": created_at.isoformat()} if created_at else {}))
    folder = keys.asset_folder(asset)
    block = os.urandom(_MIB)
    objects = []
    for number in range(count):
        path = f"layer/{number:05}.ts"
        data = (block * (size_bytes // _MIB + 1))[number % 1000 : size_bytes + number % 1000]
        (root / folder / path).parent.mkdir(parents=True, exist_ok=True)
        (root / folder / path).write_bytes(data)
        objects.append(ManifestObject(path, len(data), f"{crc32c(data):08x}", "video/mp2t"))
    manifest = new_manifest(
        asset,
        folder=folder,
        form="tree",
        version="v1",
        objects=tuple(objects),
        warnings=(),
        facts={},
        now=datetime.now(UTC),
        archiver_version="benchmark",
    )
    at = root / keys.manifest_key(asset_id, created_at)
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_bytes(manifest.to_bytes())
    return Job(name, asset_id, folder, count * size_bytes, count)


@contextlib.contextmanager
def s3_server(folder: Path, *, tls: bool) -> Iterator[Server]:
    """Serve `folder`/data."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [rclone_program(), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    command += ["--auth-key", ",".join(_KEYS)]
    ca_file = None
    if tls:
        authority, ca_file = trustme.CA(), folder / "ca.pem"
        authority.cert_pem.write_to_path(ca_file)
        own = authority.issue_cert("127.0.0.1")
        own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        own.private_key_pem.write_to_path(folder / "key.pem")
        command += ["--cert", str(folder / "cert.pem"), "--key", str(folder / "key.pem")]
    with subprocess.Popen([*command, str(folder / "data")], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.05)
            yield Server(f"http{'s' if tls else ''}://127.0.0.1:{port}", ca_file)
        finally:
            process.terminate()


def _run(command: Command, job: Job, server: Server, folder: Path) -> tuple[float, float]:
    """Return seconds and CPU-seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        command(job, server, folder),
        env=server.environment,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=_TIMEOUT_SECONDS,
    )
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    there = sum(path.stat().st_size for path in folder.rglob("*.ts"))
    if there != job.size_bytes:
        raise RuntimeError(f"{there} bytes are there, not {job.size_bytes}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu


def _print(job: Job, taken: Mapping[str, list[tuple[float, float]]], *, tls: bool) -> None:
    medians = {
        name: tuple(statistics.median(each) for each in zip(*runs, strict=True))
        for name, runs in taken.items()
    }
    first = medians["ours"][0]
    for name, (seconds, cpu) in medians.items():
        row = {
            "job": job.name,
            "tls": tls,
            "client": name,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu, 2),
            "mb_per_second": round(job.size_bytes / seconds / 1e6, 1),
            "of_ours": round(seconds / first, 2),
        }
        print(json.dumps(row))  # noqa: T201


if __name__ == "__main__":
    main()
