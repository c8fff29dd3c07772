"""Destination URLs: which backend they open, and how a bad one is refused."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_backends import registry
from storage_backends.azure import AzureBackend
from storage_backends.destination_url import parse_destination
from storage_backends.errors import BadDestinationUrl
from storage_backends.filesystem import FilesystemBackend
from storage_backends.gcs import GcsBackend
from storage_backends.memory import MemoryBackend
from storage_backends.registry import open_destination, open_destinations
from storage_backends.s3 import S3Backend

SECRET = "hunter2hunter2"  # looked for in messages


@pytest.mark.parametrize(
    ("text", "backend", "name"),
    [
        ("s3://bucket", S3Backend, "s3://bucket"),
        ("s3://bucket/", S3Backend, "s3://bucket"),
        ("s3://bucket/a/b/", S3Backend, "s3://bucket/a/b"),
        ("S3://bucket/a%20b", S3Backend, "s3://bucket/a b"),
        (
            "s3://bucket/p?endpoint_url=https://minio.example:9000&region=eu-west-1&addressing_style=path&checksum=md5",
            S3Backend,
            "s3://bucket/p (minio.example:9000)",
        ),
        ("s3://bucket?endpoint_url=https://MINIO.example/", S3Backend, "s3://bucket (minio.example)"),
        ("s3://bucket/p?endpoint_url=http://[::1]:9000", S3Backend, "s3://bucket/p ([::1]:9000)"),
        ("s3://bucket/p?region=eu-west-1", S3Backend, "s3://bucket/p"),
        ("gs://bucket/p", GcsBackend, "gs://bucket/p"),
        ("az://account/container", AzureBackend, "az://account/container"),
        ("az://account/container/a/b/?storage_class=cool", AzureBackend, "az://account/container/a/b"),
        (
            "az://account/container?endpoint_url=https://account.blob.core.chinacloudapi.cn/",
            AzureBackend,
            "az://account/container (account.blob.core.chinacloudapi.cn)",
        ),
        ("memory://name/p", MemoryBackend, "memory://name/p"),
        ("file:///srv/archive", FilesystemBackend, "file:///srv/archive"),
        ("file://localhost/srv/archive", FilesystemBackend, "file:///srv/archive"),
        ("file:///srv/a%20b", FilesystemBackend, "file:///srv/a b"),
        ("/srv/archive", FilesystemBackend, "file:///srv/archive"),
        ("  /srv/x/../archive ", FilesystemBackend, "file:///srv/archive"),
    ],
)
def test_a_destination_url_opens_its_backend(text: str, backend: type, name: str) -> None:
    opened = open_destination(text)

    assert isinstance(opened, backend)
    assert opened.name == name


@pytest.mark.parametrize("text", ["./archive", "file://./archive", "././archive/", "../{here}/archive"])
def test_a_relative_directory_is_named_by_its_full_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)

    opened = open_destination(text.format(here=tmp_path.name))

    assert opened.name == f"file://{tmp_path}/archive"
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is used"


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("s3:/bucket/p", "needs two slashes after 's3:'"),
        ("s3:bucket", "needs two slashes"),
        ("file:/srv/archive", "file:///srv/archive"),
        ("s3//bucket/p", "no scheme"),
        ("bucket/p", "no scheme"),
        ("archive", "./archive"),
        ("s3://", "names a bucket"),
        ("s3:///p", "names a bucket"),
        ("gs://", "names a bucket"),
        ("gs://UPPER", "is not a valid bucket name"),
        ("az://", "names an account and a container: az://account/container/prefix"),
        ("az://account", "names an account and a container"),
        ("az://account.blob.core.windows.net/c", "without .blob.core.windows.net"),
        ("az://account/a--b", "'a--b' is not a container's name"),
        ("az://account/Upper/prefix", "is not a container's name"),
        ("az://account/container?storage_class=glacier", "storage_class is one of Hot, Cool, Cold, Archive"),
        ("az://account/container?tier=hot", "accepts: endpoint_url, metadata, storage_class"),
        ("az://account/container?endpoint_url=account", "the address of the account's blob service"),
        ("s3://a", "is not a valid bucket name"),
        ("s3://bu%20cket", "is not a valid bucket name"),
        ("memory://", "memory://tests"),
        ("htps://bucket", "unknown scheme 'htps'"),
        ("ss3://bucket", "did you mean s3://"),
        ("gcs://bucket", "did you mean gs://"),
        ("azure://bucket", "known: az://, file://, gs://, memory://, s3://"),
        ("s3://bucket?regin=x", "unknown option 'regin'"),
        (
            "s3://bucket?regin=x",
            "did you mean region? s3:// accepts: acl, addressing_style, batch_role",
        ),
        ("gs://bucket?region=x", "gs:// accepts: acl, kms_key_name, metadata, storage_class, user_project"),
        ("file:///srv/archive?region=x", "accepts: none"),
        ("s3://bucket?region", "not a list of name=value"),
        ("s3://bucket?region=", "no value"),
        ("s3://bucket?region=a&region=b", "twice"),
        ("s3://bucket?checksum=sha1", "checksum is one of auto, crc32c, md5"),
        ("s3://bucket?encryption=aes", "encryption is one of AES256, aws:kms, aws:kms:dsse"),
        ("s3://bucket?kms_key_id=x", "kms_key_id goes with encryption=aws:kms"),
        ("s3://bucket?encryption=AES256&kms_key_id=x", "kms_key_id goes with encryption=aws:kms"),
        ("s3://bucket?encryption=aws:kms&kms_key_id=a b", "the id, ARN or alias of a key"),
        ("s3://bucket?addressing_style=dns", "addressing_style is one of auto, path, virtual"),
        ("s3://bucket?region=eu west", "region"),
        ("s3://bucket?endpoint_url=minio:9000", "https://s3.example.com:9000"),
        ("s3://bucket?endpoint_url=ftp://minio", "https://s3.example.com:9000"),
        ("s3://bucket?endpoint_url=https://", "https://s3.example.com:9000"),
        ("s3://bucket?endpoint_url=https://h:99999", "https://s3.example.com:9000"),
        ("s3://minio:9000/bucket", "endpoint_url=https://host:port"),
        ("s3://bucket/a#b", "%23"),
        ("s3://bucket/a/../b", "the prefix cannot be used"),
        ("s3://bucket/a//b", "the prefix cannot be used"),
        ("file://", "names no directory"),
        ("file:///", "root of the file system"),
        ("/", "root of the file system"),
        ("/..", "root of the file system"),
        ("file://host/dir", "file:///host/dir"),
        ("s3://[bucket", "not a URL"),
    ],
)
def test_a_bad_destination_is_refused_saying_what_is_wrong(text: str, reported: str) -> None:
    with pytest.raises(BadDestinationUrl) as caught:
        open_destination(text)

    assert reported in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/p",
        f"s3:/AKIAEXAMPLE:{SECRET}@bucket/p",
        f"gs://{SECRET}@bucket",
        f"s3://bucket?access_key_id={SECRET}",
        f"s3://bucket?AWS_SECRET_ACCESS_KEY={SECRET}",
        f"s3://bucket?session_token={SECRET}",
        f"s3://bucket?X-Amz-Signature={SECRET}",
        f"s3://bucket?{SECRET}=1",
        f"s3://bucket?{SECRET.upper()}",
        f"s3://bucket?regin={SECRET}",
        f"s3://bucket?checksum={SECRET}",
        f"s3://bucket?endpoint_url=https://user:{SECRET}@host",
        f"s3://bucket?endpoint_url=https://host?token={SECRET}",
        f"htps://user:{SECRET}@host",
        f"nothing?token={SECRET}",
        f"s3://bucket#{SECRET}",
        f"user:{SECRET}@host",
    ],
)
def test_a_credential_in_a_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadDestinationUrl) as caught:
        open_destination(text)

    result = f"{caught.value!r} {caught.value.__cause__!r}"
    assert SECRET not in result.lower()


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(BadDestinationUrl):
        parse_destination(text)


@pytest.mark.parametrize(
    "other", ["s3://bucket/p?endpoint_url=https://one&region=x", "S3://bucket/p/?endpoint_url=http://ONE/"]
)
def test_two_destinations_of_one_name_are_refused(other: str) -> None:
    with pytest.raises(BadDestinationUrl, match="given twice"):
        open_destinations(["s3://bucket/p?endpoint_url=https://one", other])


def test_one_bucket_name_at_two_providers_makes_two_destinations() -> None:
    opened = open_destinations(
        [
            "s3://bucket/p",
            "s3://bucket/p?endpoint_url=https://one",
            "s3://bucket/p?endpoint_url=https://one:9000",
        ]
    )

    assert [backend.name for backend in opened] == [
        "s3://bucket/p",
        "s3://bucket/p (one)",
        "s3://bucket/p (one:9000)",
    ]


def test_two_packages_that_offer_one_scheme_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = [EntryPoint("x", f"package{n}:open_backend", registry.GROUP) for n in (1, 2)]
    monkeypatch.setattr(registry, "entry_points", lambda **_: offers)

    with pytest.raises(BadDestinationUrl, match=r"package1:open_backend and\s+package2:open_backend"):
        open_destination("x://y")


@pytest.mark.parametrize("value", ["no_such_package:open_backend", "storage_backends.memory:no_such_name"])
def test_a_package_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda **_: [EntryPoint("x", value, registry.GROUP)])

    with pytest.raises(BadDestinationUrl, match=value):
        open_destination("x://y")


def test_opening_every_backend_asks_nobody_and_touches_nothing(tmp_path: Path) -> None:
    """In a process where every connection and every new directory is an error."""
    program = f"""
import os, socket
def refuse(*_): raise SystemExit("touched the outside")
socket.socket.connect = socket.getaddrinfo = os.mkdir = refuse
from storage_backends.registry import open_destination
for url in ("s3://bucket/p", "gs://bucket/p", "az://account/container/p", "{tmp_path}/archive", "memory://m"):
    open_destination(url)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_client_is_made_again_after_a_fork() -> None:
    program = """
import os
from storage_backends.per_process import PerProcess
made = PerProcess(object)
before = made.get()
assert made.get() is before
child = os.fork()
if child == 0:
    os._exit(0 if made.get() is not before and made.get() is made.get() else 1)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=60, check=False)

    assert done.returncode == 0


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("s3://b/p/q?endpoint_url=https://minio.example:9000", "s3://b/p/q/manifests/a.json"),
        ("gs://b", "gs://b/manifests/a.json"),
        ("az://account/container/p", "az://account/container/p/manifests/a.json"),
        ("/srv/archive", "/srv/archive/manifests/a.json"),
    ],
)
def test_a_location_is_what_other_tools_take(url: str, location: str) -> None:
    assert parse_destination(url).location("manifests/a.json") == location
