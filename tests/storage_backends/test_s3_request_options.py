"""Every option of PutObject and UploadPart is sent, or not sent for a reason: a release of boto3 with a new one fails
here, and so does an option that the backend sets and our own requests would not carry."""

from __future__ import annotations

from collections.abc import Mapping

import botocore.session
import pytest
from botocore.model import Shape

from storage_backends.base import ObjectSpec, object_key
from storage_backends.labels import Labelling
from storage_backends.s3 import S3Settings
from storage_backends.s3.request_options import ELSEWHERE, HEADERS, NOT_SENT

OPERATIONS = ["PutObject", "UploadPart"]


def options_of(operation: str) -> Mapping[str, Shape]:
    shape = botocore.session.get_session().get_service_model("s3").operation_model(operation).input_shape
    assert shape is not None
    return shape.members


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_option_of_boto3_is_in_one_table(operation: str) -> None:
    assert options_of(operation).keys() <= HEADERS.keys() | ELSEWHERE | NOT_SENT.keys(), (
        "decide in request_options.py"
    )


def test_no_option_is_in_two_tables() -> None:
    assert not HEADERS.keys() & ELSEWHERE
    assert not NOT_SENT.keys() & (HEADERS.keys() | ELSEWHERE)


def test_each_option_becomes_the_header_that_boto3_makes_of_it() -> None:
    options = options_of("PutObject")

    assert {name: options[name].serialization["name"].lower() for name in HEADERS} == HEADERS


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
