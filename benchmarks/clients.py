"""The clients that are compared: ours, and what a team would script instead, each with the best settings we found.

Peers come from a virtual environment of their own (requirements.lock): the AWS CLI pins another botocore than ours.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.source import TOKEN
from benchmarks.workloads import Form, Job

_PEERS = Path(__file__).parent / "peers"
_MIB = 2**20
PROCESS_BYTES = 256 * _MIB  # of a worker process, by default
PEERS_PART_BYTES = 8 * _MIB  # of the other clients; ours are of transfer.part_sizes.PART_BYTES


@dataclass(frozen=True, slots=True)
class Task:
    """What a client is to do: everything of the job from the source to the bucket at the sink. `sink`: s3 or gcs."""

    job: str
    form: str
    paths: tuple[str, ...]
    signed_url: str  # folder; needs `token` as query, refuses HEAD
    open_url: str  # the same folder, listable
    token: str
    sink: str
    sink_url: str
    destination: str  # as a setting of ours names it
    ca_file: str | None
    connections: int
    part_bytes: int
    process_bytes: int

    @classmethod
    def of(
        cls,
        job: Job,
        source_url: str,
        sink_url: str,
        ca_file: Path | None,
        *,
        sink: str = "s3",
        connections: int | None = None,
    ) -> Task:
        return cls(
            job=job.name,
            form=job.form,
            paths=tuple(job.files),
            signed_url=f"{source_url}/signed/{job.name}",
            open_url=f"{source_url}/open/{job.name}",
            token=TOKEN,
            sink=sink,
            sink_url=sink_url,
            destination={
                "s3": f"s3://bucket/ours?endpoint_url={sink_url}&region=us-east-1",
                "gcs": "gs://bucket/ours",
            }[sink],
            ca_file=str(ca_file) if ca_file else None,
            connections=connections or job.connections,
            part_bytes=PEERS_PART_BYTES,
            process_bytes=PROCESS_BYTES,
        )


Command = Callable[[Task, Path], list[str]]


@dataclass(frozen=True, slots=True)
class Client:
    """`jobs`: those it can do. `single_stream`: one connection to the source whatever is done, so that it is left out
    of large jobs in real life (55 s a GiB). `sinks`: those it can write to."""

    name: str
    command: Command
    jobs: frozenset[str]
    single_stream: bool = False
    program: str = ""  # in the peers' environment; absent: the client is left out
    sinks: frozenset[str] = frozenset({"s3"})


def _ours(_: Task, __: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.ours"]


def _peer(script: str) -> Command:
    def command(_: Task, peers: Path) -> list[str]:
        return [str(peers / "python"), str(_PEERS / script)]

    return command


def _rclone(task: Task) -> list[str]:
    """Checked against its documentation: nothing looked at twice, no checksum that the store does not ask for.

    To Google Cloud Storage it knows one stream an object, in chunks of 16 MiB.
    """
    options = ["--config", os.devnull, "--retries", "1", "--no-traverse", "--no-check-dest", "--stats", "0"]
    options += ["--no-update-modtime", "--buffer-size", "1Mi"]
    options += _rclone_s3(task) if task.sink == "s3" else _rclone_gcs(task)
    return options + (["--ca-cert", task.ca_file] if task.ca_file else [])


def _rclone_gcs(task: Task) -> list[str]:
    endpoint = ["--gcs-endpoint", f"{task.sink_url}/storage/v1/", "--gcs-anonymous"]
    return [*endpoint, "--gcs-no-check-bucket", "--gcs-bucket-policy-only"]


def _rclone_s3(task: Task) -> list[str]:
    return [
        *(
            "--s3-provider",
            "Other",
            "--s3-endpoint",
            task.sink_url,
            "--s3-env-auth",
            "--s3-region",
            "us-east-1",
        ),
        *(
            "--s3-chunk-size",
            f"{PEERS_PART_BYTES // _MIB}Mi",
            "--s3-upload-concurrency",
            str(task.connections),
        ),
        *(
            "--s3-no-check-bucket",
            "--s3-no-head",
            "--s3-disable-checksum",
            "--s3-use-unsigned-payload",
            "true",
        ),
    ]


def _rclone_copy(task: Task, peers: Path) -> list[str]:
    many = task.form == Form.MANY
    transfers = task.connections if many else min(8, len(task.paths))
    streams = max(1, task.connections // transfers)
    return [
        str(peers / "rclone"),
        "copy",
        ":http:",
        f":{task.sink}:bucket/rclone",
        *(
            "--http-url",
            f"{task.open_url}/",
            "--transfers",
            str(transfers),
            "--checkers",
            str(task.connections),
        ),
        *("--multi-thread-streams", str(streams), "--multi-thread-cutoff", "16Mi"),
        *("--multi-thread-chunk-size", "8Mi"),
        *_rclone(task),
    ]


def _rclone_copyurl(task: Task, peers: Path) -> list[str]:
    url = f"{task.signed_url}/{task.paths[0]}?{task.token}"
    return [str(peers / "rclone"), "copyurl", url, f":{task.sink}:bucket/rclone/0.mp4", *_rclone(task)]


def _rclone_extract(task: Task, peers: Path) -> list[str]:
    url = ["--http-url", f"{task.open_url}/"]
    program = [str(peers / "rclone"), "archive", "extract", ":http:vod.zip", f":{task.sink}:bucket/rclone"]
    return [*program, *url, "--transfers", str(task.connections), *_rclone(task)]


def _pipe(upload: str) -> Command:
    def command(task: Task, peers: Path) -> list[str]:
        url = f"{task.signed_url}/{task.paths[0]}?{task.token}"
        ca = f"--cacert {task.ca_file}" if task.ca_file else ""
        into = upload.format(bin=peers, sink=task.sink_url)
        return ["sh", "-c", f"curl --silent --fail {ca} '{url}' | {into}"]

    return command


_LARGE = frozenset({"A", "A1", "A8", "B"})
_ONE = frozenset({"A", "A1"})
_MANY = frozenset({"C", "C12", "C1M", "D"})
_BOTH = frozenset({"s3", "gcs"})

CLIENTS = (
    Client("ours", _ours, _LARGE | _MANY | {"E"}, sinks=_BOTH),
    Client("rclone", _rclone_copy, _LARGE | _MANY, program="rclone", sinks=_BOTH),
    Client("obstore", _peer("obstore_ranged.py"), _LARGE | _MANY, program="python", sinks=_BOTH),
    Client("boto3-ranged", _peer("boto3_ranged.py"), _LARGE | _MANY, program="python"),
    Client("httpx-boto3", _peer("httpx_boto3.py"), _LARGE | _MANY, single_stream=True, program="python"),
    Client("rclone-copyurl", _rclone_copyurl, _ONE, single_stream=True, program="rclone", sinks=_BOTH),
    Client(
        "curl-s5cmd",
        _pipe(
            "{bin}/s5cmd --endpoint-url {sink} pipe --concurrency 16 --part-size 8 s3://bucket/s5cmd/0.mp4"
        ),
        _ONE,
        single_stream=True,
        program="s5cmd",
    ),
    Client(
        "curl-aws",
        _pipe("{bin}/aws s3 cp - s3://bucket/aws/0.mp4 --endpoint-url {sink} --expected-size 53687091200"),
        _ONE,
        single_stream=True,
        program="aws",
    ),
    Client("rclone-extract", _rclone_extract, frozenset({"E"}), program="rclone", sinks=_BOTH),
    Client("zipfile-boto3", _peer("zipfile_boto3.py"), frozenset({"E"}), program="python"),
)


def environment(task: Task) -> Mapping[str, str]:
    env = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "benchmarkkey",
        "AWS_SECRET_ACCESS_KEY": "benchmarksecret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    if task.sink == "gcs":
        env["STORAGE_EMULATOR_HOST"] = task.sink_url
    if task.ca_file:
        env |= dict.fromkeys(("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), task.ca_file)
    return env


def stdin_of(task: Task) -> str:
    return json.dumps(asdict(task))
