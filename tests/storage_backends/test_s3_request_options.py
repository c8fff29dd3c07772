"""Every option of PutObject, UploadPart and GetObject is sent, or not sent for a reason: a release of boto3 with a new
one fails here, and so does an option that the backend sets and our own requests would not carry."""

from __future__ import annotations

from collections.abc import Mapping

import botocore.session
import pytest
from botocore.model import Shape

from storage_backends.base import ObjectSpec, object_key
from storage_backends.labels import Labelling
from storage_backends.s3 import S3Settings
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.request_options import (
    ELSEWHERE,
    HEADERS,
    NOT_READ,
    NOT_SENT,
    READ_ELSEWHERE,
    READ_HEADERS,
)

TABLES = {
    "PutObject": (HEADERS, ELSEWHERE, NOT_SENT),
    "UploadPart": (HEADERS, ELSEWHERE, NOT_SENT),
    "GetObject": (READ_HEADERS, READ_ELSEWHERE, NOT_READ),
}


def options_of(operation: str) -> Mapping[str, Shape]:
    shape = botocore.session.get_session().get_service_model("s3").operation_model(operation).input_shape
    assert shape is not None
    return shape.members


@pytest.mark.parametrize("operation", TABLES)
def test_every_option_of_boto3_is_in_one_table(operation: str) -> None:
    sent, elsewhere, not_sent = TABLES[operation]

    assert options_of(operation).keys() <= sent.keys() | elsewhere | not_sent.keys(), (
        "decide in request_options.py"
    )


@pytest.mark.parametrize("operation", TABLES)
def test_no_option_is_in_two_tables(operation: str) -> None:
    sent, elsewhere, not_sent = TABLES[operation]

    assert not sent.keys() & elsewhere
    assert not not_sent.keys() & (sent.keys() | elsewhere)


@pytest.mark.parametrize("operation", ["PutObject", "GetObject"])
def test_each_option_becomes_the_header_that_boto3_makes_of_it(operation: str) -> None:
    sent, options = TABLES[operation][0], options_of(operation)

    assert {name: options[name].serialization["name"].lower() for name in sent} == sent


def test_what_the_backend_puts_into_a_read_is_sent() -> None:
    address = Bucket(S3Settings("bucket", request_payer="requester")).address(object_key("k"))

    assert address.keys() | {"Range", "IfMatch"} == READ_HEADERS.keys() | {"Bucket", "Key"}


def test_what_the_backend_puts_into_a_request_is_sent() -> None:
    """tests/storage_backends/test_s3_options.py sends each of them."""
    labels = Labelling(("room",), {"team": "video"})
    settings = S3Settings(
        "bucket",
        encryption="aws:kms",
        kms_key_id="key",
        kms_context="e30=",
        bucket_key=True,
        storage_class="STANDARD_IA",
        tags=labels,
        metadata=labels,
        acl="private",
        request_payer="requester",
        lock_mode="GOVERNANCE",
        lock_days=1,
    )
    spec = ObjectSpec(object_key("k"), "video/mp4", metadata={"a": "b"}, media=True, lock=True)

    options = settings.of_new_object(spec, "identity")

    in_conditions_and_checksums = {"ContentMD5", "ChecksumCRC32C", "IfMatch", "IfNoneMatch"}
    assert options.keys() == HEADERS.keys() - in_conditions_and_checksums | {"Metadata"}
    assert settings.encrypting.keys() <= HEADERS.keys()
