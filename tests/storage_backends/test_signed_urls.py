"""Signed URLs: who holds one reads the object, until it ends."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import Request, urlopen

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from storage_backends.base import ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import AccessDenied
from storage_backends.optional import Thaw, ThawSpeed
from storage_backends.registry import open_destination
from storage_backends.s3 import thawing
from tests.servers import GcsServer, S3Server

KEY = object_key("recordings/a b+c/100%.mp4")


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_s3_signs_with_version_4_and_the_object_is_read_in_ranges(
    rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    for name, value in rclone_server.env.items():
        monkeypatch.setenv(name, value)
    url = rclone_server.url(rclone_server.new_bucket(), "pre/fix", region=region)
    with contextlib.closing(open_destination(url)) as backend:
        backend.put(ObjectSpec(KEY, "video/mp4"), b"0123456789", crc32c_of(b"0123456789"))
        signed = backend.signed_url(KEY, timedelta(minutes=2))  # type: ignore[attr-defined]

    with urlopen(Request(signed, headers={"Range": "bytes=2-4"}), timeout=10) as answer:
        assert answer.read() == b"234"
    query = parse_qs(urlsplit(signed).query)
    assert (query["X-Amz-Algorithm"], query["X-Amz-Expires"]) == (["AWS4-HMAC-SHA256"], ["120"])


def test_gcs_signs_with_the_key_of_a_service_account(
    gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No server here checks the signature: the account's public key does."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "client_email": "archiver@test.example",
        "token_uri": "https://127.0.0.1:1/token",
        "project_id": "test",
        "private_key": private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    }
    (tmp_path / "key.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    with contextlib.closing(open_destination("gs://a-bucket/pre")) as backend:
        signed = backend.signed_url(KEY, timedelta(minutes=2))  # type: ignore[attr-defined]

    split = urlsplit(signed)
    query = parse_qs(split.query)
    assert f"{split.netloc}{split.path}" == f"storage.googleapis.com/a-bucket/pre/{quote(KEY)}"
    assert query["X-Goog-Expires"] == ["120"]
    unsigned = split.query.rpartition("&X-Goog-Signature=")[0]
    canonical = f"GET\n{split.path}\n{unsigned}\nhost:{split.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashes.Hash(hashes.SHA256())
    digest.update(canonical.encode())
    scope = query["X-Goog-Credential"][0].partition("/")[2]
    to_sign = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date'][0]}\n{scope}\n{digest.finalize().hex()}"
    private.public_key().verify(
        bytes.fromhex(query["X-Goog-Signature"][0]), to_sign.encode(), padding.PKCS1v15(), hashes.SHA256()
    )


def test_gcs_credentials_without_a_key_cannot_sign(
    gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint_url)
    with (
        contextlib.closing(open_destination("gs://a-bucket/pre")) as backend,
        pytest.raises(AccessDenied, match="service account's key file"),
    ):
        backend.signed_url(KEY, timedelta(minutes=2))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("head", "thaw"),
    [
        ({}, Thaw("STANDARD")),
        ({"StorageClass": "GLACIER_IR"}, Thaw("GLACIER_IR")),
        ({"StorageClass": "GLACIER"}, Thaw("GLACIER", timedelta(hours=12))),
        ({"StorageClass": "DEEP_ARCHIVE"}, Thaw("DEEP_ARCHIVE", timedelta(hours=48))),
        (
            {"StorageClass": "DEEP_ARCHIVE", "Restore": 'ongoing-request="true"'},
            Thaw("DEEP_ARCHIVE", timedelta(hours=48)),
        ),
        ({"StorageClass": "GLACIER", "Restore": 'ongoing-request="false"'}, Thaw("GLACIER")),
        (
            {"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "ARCHIVE_ACCESS"},
            Thaw("ARCHIVE_ACCESS", timedelta(hours=12)),
        ),
    ],
    ids=str,
)
def test_what_a_head_tells_of_a_cold_object(head: dict[str, str], thaw: Thaw) -> None:
    assert thawing.state_of(head, ThawSpeed.BULK) == thaw


def test_what_is_under_way_is_not_asked_for_again(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto_server.env.items():
        monkeypatch.setenv(name, value)
    bucket = moto_server.new_bucket()
    with (
        contextlib.closing(moto_server.client()) as client,
        contextlib.closing(open_destination(moto_server.url(bucket))) as backend,
    ):
        client.put_object(Bucket=bucket, Key="cold", Body=b"x", StorageClass="DEEP_ARCHIVE")
        sent: list[object] = []
        client_of_backend = backend._bucket.client  # type: ignore[attr-defined]
        client_of_backend.meta.events.register(
            "before-call.s3.RestoreObject", lambda params, **_: sent.append(params["body"])
        )
        thaw = backend.thaw  # type: ignore[attr-defined]
        first = thaw(object_key("cold"), ThawSpeed.STANDARD, 3)
        second = thaw(object_key("cold"), ThawSpeed.STANDARD, 3)

    assert (first.asked, first.storage_class, second.asked) == (True, "DEEP_ARCHIVE", False)
    assert len(sent) == 1
    assert b"<Tier>Standard</Tier>" in sent[0]  # type: ignore[operator]
