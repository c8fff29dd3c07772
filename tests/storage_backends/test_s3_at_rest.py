"""Jobs of S3 Batch Operations: the requests that botocore makes of ours, answered by a stand-in, and a report in a real
bucket. Nobody has tried them on AWS."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict

from storage_backends.base import ObjectSpec, object_key
from storage_backends.crc32c import crc32c_of
from storage_backends.errors import AccessDenied, BadDestinationUrl
from storage_backends.optional import Computed, checksums_of
from storage_backends.registry import open_destination
from storage_backends.s3 import S3Backend
from tests.servers import S3Server

ROLE = "arn:aws:iam::123456789012:role/archiver-batch"
LIST = object_key("at-rest/abc.csv")


class _Body:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self.data


@pytest.fixture
def store(ministack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Backend]:
    for name, value in ministack_server.env.items():
        monkeypatch.setenv(name, value)
    url = ministack_server.url(ministack_server.new_bucket(), "pre", batch_role_arn=ROLE)
    with contextlib.closing(open_destination(url)) as opened:
        assert isinstance(opened, S3Backend)
        yield opened


def answered(store: S3Backend, *answers: tuple[int, str]) -> list[AWSPreparedRequest]:
    """Answer the next requests of jobs; return them as they are sent."""
    sent: list[AWSPreparedRequest] = []
    left = iter(answers)

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        sent.append(request)
        status, body = next(left)
        raw: Any = _Body(body.encode())
        headers: Any = HeadersDict({"content-type": "application/xml"})
        return AWSResponse(request.url, status, headers, raw)

    store._bucket.jobs.meta.events.register("before-send.s3-control", answer)
    return sent


def put(store: S3Backend, key: str, data: bytes) -> str:
    info = store.put(ObjectSpec(object_key(key), "text/csv", len(data)), data, crc32c_of(data))
    assert info.etag is not None
    return info.etag


def test_a_job_is_asked_for_looked_at_and_its_report_read(store: S3Backend) -> None:
    line = store.checksum_line(object_key("recordings/a b,c.mp4"), "manifests/2026/01/01/x.json")
    etag = put(store, LIST, line)
    describe = (
        "<DescribeJobResult><Job><JobId>job-1</JobId><Status>{}</Status><ProgressSummary><TotalNumberOfTasks>3"
        "</TotalNumberOfTasks><NumberOfTasksSucceeded>1</NumberOfTasksSucceeded><NumberOfTasksFailed>1"
        "</NumberOfTasksFailed></ProgressSummary></Job></DescribeJobResult>"
    )
    sent = answered(
        store,
        (200, "<CreateJobResult><JobId>job-1</JobId></CreateJobResult>"),
        (200, describe.format("Active")),
        (200, describe.format("Complete")),
    )

    job_id = store.begin_checksums(LIST, etag, "at-rest/", "token-1")
    active, complete = store.checksum_job(job_id), store.checksum_job(job_id)
    assert store.checksums("at-rest/", job_id) is None
    said = (
        '{""checksum_base64"":""bS9TOQ=="",""etag"":""e"",""checksumAlgorithm"":""CRC32C"",'
        '""checksumType"":""FULL_OBJECT""}'
    )
    put(
        store,
        "at-rest/job-job-1/results/1.csv",
        f'b,pre/recordings/a%20b%2Cc.mp4,,succeeded,200,,"{said}"\n'.encode(),
    )
    put(store, "at-rest/job-job-1/manifest.json", b"{}")
    results = store.checksums("at-rest/", job_id)

    assert (
        line == f"{store._bucket.bucket},pre/recordings/a%20b%2Cc.mp4,manifests/2026/01/01/x.json\n".encode()
    )
    assert store.checksum_note(line.decode()) == "manifests/2026/01/01/x.json"
    assert (active.succeeded, active.done, active.total, complete.succeeded) == (None, 2, 3, True)
    assert results is not None
    assert dict(results) == {"recordings/a b,c.mp4": Computed(0x6D2F5339, "e", "")}
    create = sent[0]
    body: Any = create.body
    assert create.url.startswith("https://123456789012.s3-control.")
    told = {each.tag.rpartition("}")[2]: each.text for each in ET.fromstring(body).iter()}
    assert told["ObjectArn"] == f"arn:aws:s3:::{store._bucket.bucket}/pre/at-rest/abc.csv"
    assert told["ETag"] == etag.strip('"')
    assert told["Prefix"] == "pre/at-rest"
    assert (told["ClientRequestToken"], told["RoleArn"]) == ("token-1", ROLE)
    assert (told["ChecksumAlgorithm"], told["ChecksumType"]) == ("CRC32C", "FULL_OBJECT")
    assert told["ConfirmationRequired"] == "false"


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.begin_checksums(LIST, "e", "at-rest/", "t"),
        lambda store: store.checksum_job("job-1"),
    ],
)
def test_a_refusal_is_told_as_one(store: S3Backend, ask: Callable[[S3Backend], object]) -> None:
    refusal = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    answered(store, *[(403, refusal)] * 5)

    with pytest.raises(AccessDenied):
        ask(store)


def test_without_the_option_a_destination_computes_nothing() -> None:
    store = open_destination("s3://bucket/pre?region=eu-west-1")

    assert checksums_of(store) is None
    with pytest.raises(BadDestinationUrl):
        open_destination("s3://bucket/pre?batch_role_arn=role")
