"""The stores that uploads are resumed at, each with its server, its sink in front, and a side door."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

import pytest

from storage_backends.registry import open_destination
from tests.contracts.storage_contract import abort_stale_uploads
from tests.gcs_by_the_book import gcs_by_the_book
from tests.killed.sink import Sink
from tests.servers import AzuriteServer, GcsServer, S3Server

KIB = 1024


@dataclass(frozen=True)
class Destination:
    """`open_uploads` counts what is unfinished there; None where the server does not tell. `held_bytes`: of parts
    durably there, for one without a sink."""

    url: str
    read: Callable[[str], bytes]
    part_bytes: int = 64 * KIB
    open_uploads: Callable[[], int | None] = lambda: None
    held_bytes: Callable[[], int] = lambda: 0
    sweep: Callable[[timedelta], int] = lambda _: 0
    sink: Sink | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def s3_destination(server: S3Server) -> Iterator[Destination]:
    bucket = server.new_bucket()
    with closing(Sink(_port(server.endpoint_url))) as sink, closing(server.client()) as client:
        yield Destination(
            url=f"s3://{bucket}/pre?endpoint_url={quote(sink.endpoint_url, safe='')}",
            read=lambda key: client.get_object(Bucket=bucket, Key=f"pre/{key}")["Body"].read(),
            open_uploads=lambda: len(client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])),
            sink=sink,
            sweep=lambda older_than: sweep(server.url(bucket, "pre"), older_than, server.env),
            env=server.env,
        )


@contextmanager
def azurite_destination(server: AzuriteServer) -> Iterator[Destination]:
    container = server.new_bucket()
    with closing(Sink(_port(server.endpoint_url))) as sink, server.client() as client:
        endpoint_url = f"{sink.endpoint_url}/{server.account}"
        yield Destination(
            url=f"az://{server.account}/{container}/pre?endpoint_url={quote(endpoint_url, safe='')}",
            read=lambda key: client.get_blob_client(container, f"pre/{key}").download_blob().readall(),
            sink=sink,
            env=server.env,
        )


@contextmanager
def fake_gcs_destination(server: GcsServer) -> Iterator[Destination]:
    bucket = server.new_bucket()
    with closing(Sink(_port(server.endpoint_url))) as sink:

        def read(key: str) -> bytes:
            name = quote(f"pre/{key}", safe="")
            with urlopen(
                f"{server.endpoint_url}/download/storage/v1/b/{bucket}/o/{name}?alt=media"
            ) as answer:
                body: bytes = answer.read()
                return body

        yield Destination(
            url=f"gs://{bucket}/pre",
            read=read,
            part_bytes=256 * KIB,
            sink=sink,
            env={"STORAGE_EMULATOR_HOST": sink.endpoint_url},
        )


@contextmanager
def gcs_book_destination() -> Iterator[Destination]:
    with gcs_by_the_book() as service, closing(Sink(_port(f"http://{service.authority}"))) as sink:
        service.objects["bucket"] = {}
        yield Destination(
            url="gs://bucket/pre",
            read=lambda key: service.objects["bucket"][f"pre/{key}"][1],
            part_bytes=256 * KIB,
            open_uploads=lambda: sum(
                session.done is None and not session.cancelled for session in service.sessions.values()
            ),
            sink=sink,
            env={"STORAGE_EMULATOR_HOST": sink.endpoint_url},
        )


@contextmanager
def directory_destination(root: Path) -> Iterator[Destination]:
    uploads = root / ".uploads"

    def held_bytes() -> int:
        """By its own journal, whose lines count when they are whole."""
        parts: dict[bytes, int] = {}
        for journal in uploads.glob("*/parts"):
            for line in journal.read_bytes().split(b"\n")[:-1]:
                number, *rest = line.split(b" ") if line else (b"", b"-")
                parts[number] = int(rest[0]) if rest != [b"-"] else 0
        return sum(parts.values())

    yield Destination(
        url=f"file://{root}",
        read=lambda key: (root / key).read_bytes(),
        open_uploads=lambda: len(list(uploads.iterdir())) if uploads.exists() else 0,
        held_bytes=held_bytes,
        sweep=lambda older_than: sweep(f"file://{root}", older_than, {}),
    )


def sweep(url: str, older_than: timedelta, env: Mapping[str, str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        with closing(open_destination(url)) as store:
            return abort_stale_uploads(store, older_than)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
