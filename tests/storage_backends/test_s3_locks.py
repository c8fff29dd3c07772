"""What moto makes of locks and cold classes; looked at with boto3. More: tests/contracts/options_contract.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from types_boto3_s3.client import S3Client

from storage_backends.base import ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import AccessDenied, ObjectCold, StorageError
from storage_backends.registry import open_destination
from storage_backends.s3 import S3Backend
from tests.servers import S3Server

KEY = object_key("recordings/movie.mp4")
STORED = f"pre/{KEY}"


@pytest.fixture
def client(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Client]:
    for name, value in moto_server.env.items():
        monkeypatch.setenv(name, value)
    with contextlib.closing(moto_server.client()) as client:
        yield client


@pytest.fixture
def bucket(client: S3Client, moto_server: S3Server) -> str:
    bucket = f"{moto_server.new_bucket()}-locks"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    return bucket


@contextlib.contextmanager
def opened(server: S3Server, bucket: str, **options: str) -> Iterator[S3Backend]:
    store = open_destination(server.url(bucket, "pre", **options))
    assert isinstance(store, S3Backend)
    with contextlib.closing(store):
        yield store


def put(store: S3Backend, data: bytes = b"movie", *, lock: bool = False) -> None:
    store.put(ObjectSpec(KEY, "video/mp4", media=not lock, lock=lock), data, crc32c_of(data))


def retention(client: S3Client, bucket: str) -> tuple[str, datetime] | None:
    head = client.head_object(Bucket=bucket, Key=STORED)
    if "ObjectLockMode" not in head:
        return None
    return head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]


def test_an_object_is_locked_for_the_days_of_the_setting(
    moto_server: S3Server, client: S3Client, bucket: str
) -> None:
    with opened(moto_server, bucket, lock_mode="COMPLIANCE", lock_days="30") as store:
        put(store)
        until = store.lock([KEY])

    assert until is not None
    assert retention(client, bucket) == ("COMPLIANCE", until)
    assert until - datetime.now(UTC) > timedelta(days=30) - timedelta(minutes=5)
    version = client.head_object(Bucket=bucket, Key=STORED)["VersionId"]
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key=STORED, VersionId=version)


def test_a_record_is_locked_as_it_is_stored(moto_server: S3Server, client: S3Client, bucket: str) -> None:
    with opened(moto_server, bucket, lock_mode="GOVERNANCE", lock_days="1") as store:
        put(store, b"{}", lock=True)

    found = retention(client, bucket)
    assert found is not None
    assert found[0] == "GOVERNANCE"


def test_a_longer_lock_stays_and_counts(
    moto_server: S3Server, client: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = datetime.now(UTC).replace(microsecond=0) + timedelta(days=400)
    with opened(moto_server, bucket, lock_mode="GOVERNANCE", lock_days="30") as store:
        put(store)
        client.put_object_retention(
            Bucket=bucket, Key=STORED, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": longer}
        )
        # moto lets anybody shorten a lock; AWS answers so
        denied = client.exceptions.ClientError(
            {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}},  # type: ignore[typeddict-item]
            "PutObjectRetention",
        )

        def refuse(**_: object) -> None:
            raise denied

        writing = store._bucket.writing_client  # moto's part of AWS
        monkeypatch.setattr(writing, "put_object_retention", refuse)
        store.lock([KEY])
        client.put_object_retention(
            Bucket=bucket,
            Key=STORED,
            Retention={"Mode": "COMPLIANCE", "RetainUntilDate": longer - timedelta(days=390)},
        )
        with pytest.raises(AccessDenied, match=f"locking '{KEY}'"):
            store.lock([KEY])


def test_locking_twice_is_the_same_and_a_missing_object_is_named(
    moto_server: S3Server, client: S3Client, bucket: str
) -> None:
    with opened(moto_server, bucket, lock_mode="GOVERNANCE", lock_days="2") as store:
        put(store)
        store.lock([KEY])
        first = retention(client, bucket)
        again = store.lock([KEY])
        with pytest.raises(StorageError, match=r"recordings/other.mp4"):  # moto answers 500, AWS 404
            store.lock([object_key("recordings/other.mp4")])

    assert first is not None
    assert again is not None
    assert first[1] <= again


def test_without_the_setting_nothing_is_locked(moto_server: S3Server, client: S3Client, bucket: str) -> None:
    with opened(moto_server, bucket) as store:
        put(store, lock=True)

        assert store.lock([KEY]) is None

    assert retention(client, bucket) is None


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_a_cold_object_is_described_and_not_read(
    storage_class: str, moto_server: S3Server, client: S3Client, bucket: str
) -> None:
    with opened(moto_server, bucket, storage_class=storage_class) as store:
        put(store)
        found = store.stat(KEY)
        listed = list(store.list())
        with pytest.raises(ObjectCold, match="restore it first"):
            store.read(KEY)
        client.restore_object(Bucket=bucket, Key=STORED, RestoreRequest={"Days": 2})
        thawed = store.stat(KEY)

        assert found is not None
        assert thawed is not None
        assert (found.storage_class, found.cold, thawed.cold) == (storage_class, True, False)
        assert [(info.storage_class, info.cold) for info in listed] == [(storage_class, True)]
        assert store.read(KEY) == b"movie"
