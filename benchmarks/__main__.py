"""`python -m benchmarks`: every client on the same job, source, sink and network, in turns; see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import platform
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

from benchmarks import measure, report, targets
from benchmarks.clients import CLIENTS, Client, Task, environment, stdin_of
from benchmarks.content import write_pattern
from benchmarks.network import NETWORKS
from benchmarks.report import Run
from benchmarks.serving import SINKS, Serving, ask, started
from benchmarks.workloads import JOBS, Job

_HERE = Path(__file__).parent
# at the end of real life's slowest: one stream of 4 GiB at 20 MB/s takes 215 s
_TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Setting:
    network: str
    tls: bool

    @property
    def name(self) -> str:
        return f"{self.network} tls" if self.tls else self.network


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of one setting, and the folder of other tools."""

    setting: Setting
    source_url: str
    sink_urls: Mapping[str, str]  # by kind
    ca_file: Path | None
    peers: Path


def main() -> None:
    options = _options()
    names = [name.strip() for name in options.jobs.split(",")]
    only = set(options.only.split(",")) if options.only else None
    peers = Path(options.peers).absolute() / "bin"
    clients = [
        client
        for client in CLIENTS
        if (only is None or client.name in only) and (not client.program or (peers / client.program).exists())
    ]
    left_out = [client.name for client in CLIENTS if client.program and not (peers / client.program).exists()]
    if left_out:
        _say(f"not in {peers}, left out: {', '.join(left_out)}")
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        pattern = Path(folder) / "pattern"
        write_pattern(pattern)
        with pattern.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        jobs = [JOBS[name](options.size_scale, view) for name in names]
        for network in options.settings.split(","):
            for tls in (False, True) if options.tls == "both" else (options.tls == "yes",):
                setting = Setting(network, tls)
                with _servers(setting, Path(folder), pattern, options, names, peers) as servers:
                    for job in jobs:
                        runs += _interleaved(job, servers, clients, options, view)
                        _say(report.summary(runs, job.name, setting.name))
    if reached := list(targets.outcomes(runs)):
        _say(targets.table(reached))
    results = _HERE / "results"
    results.mkdir(exist_ok=True)
    written = results / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}.json"
    written.write_text(
        json.dumps({"machine": _machine(options), "runs": [asdict(run) for run in runs]}, indent=1)
    )
    _say(f"written to {written}")


@contextlib.contextmanager
def _servers(
    setting: Setting,
    folder: Path,
    pattern: Path,
    options: argparse.Namespace,
    names: Sequence[str],
    peers: Path,
) -> Iterator[Servers]:
    scheme, certificate, ca_file = "http", None, None
    if setting.tls:
        authority = trustme.CA()
        scheme, certificate, ca_file = "https", folder / "server.pem", folder / "ca.pem"
        authority.cert_pem.write_to_path(ca_file)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    common = {
        "network": setting.network,
        "pattern": str(pattern),
        "certificate": str(certificate) if certificate else None,
        "scale": options.size_scale,
    }
    with (
        started(Serving("source", jobs=tuple(names), **common)) as source_port,
        contextlib.ExitStack() as stack,
    ):
        sink_urls = {}
        for sink in options.sink.split(","):
            port = stack.enter_context(started(Serving(sink, verify=options.verify, **common)))
            sink_urls[sink] = f"{scheme}://127.0.0.1:{port}"
        yield Servers(setting, f"{scheme}://127.0.0.1:{source_port}", sink_urls, ca_file, peers)


def _interleaved(
    job: Job, servers: Servers, clients: Sequence[Client], options: argparse.Namespace, pattern: memoryview
) -> Iterator[Run]:
    """Each client once on each sink, and all again, so that what else the machine does befalls all alike."""
    able = [client for client in clients if job.name in client.jobs]
    if servers.setting.network != "raw" and job.name in ("A", "B"):
        able = [client for client in able if not client.single_stream]  # A1 shows what they take
    context = ssl.create_default_context(cafile=servers.ca_file) if servers.ca_file else None
    expected = _expected(job, pattern, verify=options.verify)
    tasks = {
        sink: Task.of(
            job, servers.source_url, url, servers.ca_file, sink=sink, connections=options.connections
        )
        for sink, url in servers.sink_urls.items()
    }
    turns = [(client, tasks[sink]) for client in able for sink in servers.sink_urls if sink in client.sinks]
    for repeat in range(options.repeat if turns else 0):
        first = repeat % len(turns)
        for client, task in turns[first:] + turns[:first]:
            command, env = client.command(task, servers.peers), environment(task)
            ask(f"{task.sink_url}/-/reset", context)
            try:
                usage = measure.run(command, env, stdin_of(task), _TIMEOUT_SECONDS)
                arrived = ask(f"{task.sink_url}/-/report", context)
                _check(client, arrived, expected)
            except measure.ClientFailed as failure:
                _say(f"{job.name} {servers.setting.name} {task.sink} {client.name}: FAILED: {failure}")
                continue
            run = Run(
                job=job.name,
                title=job.title,
                setting=servers.setting.name,
                sink=task.sink,
                client=client.name,
                repeat=repeat,
                size_bytes=job.size_bytes,
                objects=len(job.arriving),
                usage=usage,
                requests=arrived["requests"],
            )
            _say(report.line(run))
            yield run


def _expected(job: Job, pattern: memoryview, *, verify: bool) -> Counter[tuple[int, int | None]]:
    return Counter(
        (body.size_bytes, body.crc32c(pattern) if verify else None) for body in job.arriving.values()
    )


def _check(client: Client, arrived: dict[str, object], expected: Counter[tuple[int, int | None]]) -> None:
    """What lies at the sink must be what the job says, byte for byte with `--verify`, else in number and size."""
    objects = arrived["objects"]
    assert isinstance(objects, dict)
    found = Counter((stored["size_bytes"], stored["crc32c"]) for stored in objects.values())
    if found != expected:
        missing, extra = expected - found, found - expected
        raise measure.ClientFailed(
            f"{client.name} stored other objects than it should: {missing.total()} are missing, such as "
            f"{list(missing)[:3]}; {extra.total()} are not expected, such as {list(extra)[:3]}"
        )


def _machine(options: argparse.Namespace) -> dict[str, object]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "networks": {name: asdict(network) for name, network in NETWORKS.items()},
        "options": {name: value for name, value in vars(options).items() if name != "peers"},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--jobs", default="A1,A,B,C,D,E", help=f"of {','.join(JOBS)}")
    parser.add_argument("--settings", default="raw,life", help=f"of {','.join(NETWORKS)}")
    parser.add_argument("--tls", choices=("no", "yes", "both"), default="no")
    parser.add_argument("--sink", default="s3", help=f"of {','.join(SINKS)}: both in one run compare them")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--size-scale", type=float, default=1.0, help="0.1: a tenth of the bytes or files")
    parser.add_argument("--only", default="", help=f"of {','.join(client.name for client in CLIENTS)}")
    parser.add_argument("--connections", type=int, help="instead of each job's own number, for all clients")
    parser.add_argument(
        "--verify", action="store_true", help="let the sink compute checksums; for checking, not timing"
    )
    parser.add_argument(
        "--peers", default=".venv-bench", help="the virtual environment with the other clients"
    )
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command-line program


if __name__ == "__main__":
    main()
