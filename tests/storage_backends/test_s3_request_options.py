"""Every option of PutObject and UploadPart is sent, or not sent for a reason: a release of boto3 with a new one fails
here, and so does an option that the backend sets and our own requests would not carry."""

from __future__ import annotations

from collections.abc import Mapping

import botocore.session
import pytest
from botocore.model import Shape

from storage_backends.base import ObjectSpec, object_key
from storage_backends.s3 import S3Settings
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.request_options import BOTO3_HEADERS, ELSEWHERE, HEADERS, NOT_SENT

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
    settings = S3Settings("bucket", encryption="aws:kms", kms_key_id="key")
    bucket = Bucket(settings)

    options = bucket.new_object(ObjectSpec(object_key("k"), "video/mp4", metadata={"a": "b"}), "identity")

    assert options.keys() <= HEADERS.keys() | {"Metadata"}
    assert bucket.encryption.keys() <= HEADERS.keys()


@pytest.mark.parametrize("option", sorted(name for name in NOT_SENT if name.startswith("ObjectLock")))
def test_object_lock_is_left_to_the_bucket(option: str) -> None:
    header = options_of("PutObject")[option].serialization["name"].lower()

    assert "default retention" in NOT_SENT[option]
    assert header not in BOTO3_HEADERS, "boto3 sends the requests itself where somebody adds it"
