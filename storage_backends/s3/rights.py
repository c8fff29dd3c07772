"""Which rights the credentials of an S3 destination have, by trying each with one request.

AWS has no question for it that needs no right of its own (iam:SimulatePrincipalPolicy). Rights that could only be
tried by changing something (s3:DeleteObjectVersion, s3:PutLifecycleConfiguration, s3:BypassGovernanceRetention) are
not tried.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from storage_backends.base import ObjectKey, ObjectSpec
from storage_backends.errors import AccessDenied, ObjectMissing
from storage_backends.optional import Right
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.errors import code_of, kind_of, needed

_NAMED = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)")
"""In AWS's answer, and where it is, the right that is missing."""

_LOCKED_FOR = timedelta(seconds=30)  # the probe, to try the lock
_BODY = b"Written by the recording archiver to test its permissions. Safe to delete.\n"
_OF_OPTIONS: Mapping[str, tuple[str, str]] = {
    "Tagging": ("s3:PutObjectTagging", "the tags of the destination"),
    "ACL": ("s3:PutObjectAcl", "the ACL of the destination"),
    "ServerSideEncryption": ("kms:GenerateDataKey", "the encryption of the destination"),
}


def tried(bucket: Bucket, probe: ObjectKey) -> Iterator[Right]:
    """See `storage_backends.optional.TellsRights`. Raises boto3's errors for all but refusals."""
    listing = _allowed(
        lambda: bucket.client.list_objects_v2(**bucket.listed, Prefix=bucket.prefix, MaxKeys=1)
    )
    yield _of(listing, "s3:ListBucket", "telling what is there from what is not", is_essential=True)
    written = yield from _writing(bucket, probe)
    if written:
        read = _allowed(lambda: _read(bucket, probe))
        yield _of(read, "s3:GetObject", "reading back and verifying", is_essential=True)
        yield from _locking(bucket, probe)
    yield from _uploading(bucket, probe)
    if written:
        deleting = _allowed(lambda: bucket.writing_client.delete_object(**bucket.address(probe)))
        yield _of(
            deleting, "s3:DeleteObject", "removing probes and replaced records (doctor/, checks/, ends/)"
        )
    rules = _allowed(
        lambda: bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.bucket),
        fine=("NoSuchLifecycleConfiguration",),
    )
    yield _of(rules, "s3:GetLifecycleConfiguration", "reading the lifecycle rules in `archiver doctor`")
    yield from _not_needed(bucket, listed=listing is None)


def _read(bucket: Bucket, probe: ObjectKey) -> None:
    bucket.client.get_object(**bucket.address(probe))["Body"].read()


def _writing(bucket: Bucket, probe: ObjectKey) -> Generator[Right, None, bool]:
    """Return whether the probe is there."""
    options = bucket.settings.of_new_object(ObjectSpec(probe, "text/plain"))

    def put(chosen: Mapping[str, Any]) -> ClientError | None:
        request = {**bucket.address(probe), **chosen, "Body": _BODY}
        return _allowed(lambda: bucket.writing_client.put_object(**request))

    refused = put(options)
    if refused is None:
        yield Right("s3:PutObject", True, "storing", is_essential=True)
        return True
    plain = {
        name: value for name, value in options.items() if name in ("ContentType", "Metadata", "RequestPayer")
    }
    if put(plain) is not None:
        yield _of(refused, "s3:PutObject", "storing", is_essential=True)
        return False
    yield Right("s3:PutObject", True, "storing", is_essential=True)
    for option, (action, needed_for) in _OF_OPTIONS.items():
        group = {name: value for name, value in options.items() if _belongs(name, option)}
        if group:
            yield _of(put({**plain, **group}), action, needed_for, is_essential=True)
    return True


def _belongs(name: str, option: str) -> bool:
    of_encryption = ("ServerSideEncryption", "SSEKMSKeyId", "SSEKMSEncryptionContext", "BucketKeyEnabled")
    return name == option or (option == "ServerSideEncryption" and name in of_encryption)


def _locking(bucket: Bucket, probe: ObjectKey) -> Iterator[Right]:
    lock = bucket.settings.lock()
    if lock:
        until = datetime.now(UTC) + _LOCKED_FOR
        retention = {"Mode": lock["ObjectLockMode"], "RetainUntilDate": until}
        put = lambda: bucket.writing_client.put_object_retention(  # noqa: E731
            **bucket.address(probe), Retention=retention
        )
        yield _of(_allowed(put), "s3:PutObjectRetention", "locking what is archived", is_essential=True)
        get = lambda: bucket.client.get_object_retention(**bucket.address(probe))  # noqa: E731
        yield _of(_allowed(get), "s3:GetObjectRetention", "telling a longer lock from a refusal")


def _uploading(bucket: Bucket, probe: ObjectKey) -> Iterator[Right]:
    pages = lambda: bucket.writing_client.list_multipart_uploads(  # noqa: E731
        **bucket.listed, Prefix=bucket.prefix, MaxUploads=1
    )
    yield _of(_allowed(pages), "s3:ListBucketMultipartUploads", "ending uploads that were left unfinished")
    client, begun = bucket.writing_client, []
    plain = {"ContentType": "text/plain"}
    refused = _allowed(lambda: begun.append(client.create_multipart_upload(**bucket.address(probe), **plain)))
    if refused is not None:
        return  # s3:PutObject, which is reported
    upload = {**bucket.address(probe), "UploadId": needed(begun[0], "UploadId")}
    listing = _allowed(lambda: client.list_parts(**upload))
    yield _of(listing, "s3:ListMultipartUploadParts", "resuming large objects", is_essential=True)
    ending = _allowed(lambda: client.abort_multipart_upload(**upload))
    yield _of(
        ending, "s3:AbortMultipartUpload", "ending unfinished uploads, which are billed", is_essential=True
    )


def _not_needed(bucket: Bucket, *, listed: bool) -> Iterator[Right]:
    client, name = bucket.client, {"Bucket": bucket.bucket}
    may = _allowed(lambda: client.get_bucket_policy(**name), fine=("NoSuchBucketPolicy",)) is None
    yield Right("s3:GetBucketPolicy", may)
    yield Right("s3:GetBucketAcl", _allowed(lambda: client.get_bucket_acl(**name)) is None)
    yield Right("s3:ListAllMyBuckets", _allowed(client.list_buckets) is None)
    if bucket.prefix and listed:  # without the right to list, a missing key answers 403 too
        outside = f"{secrets.token_hex(16)}/not-there"
        may = _allowed(lambda: client.head_object(**bucket.listed, Key=outside)) is None
        yield Right(f"s3:GetObject outside of {bucket.prefix}", may)


def _of(refusal: ClientError | None, action: str, needed_for: str, *, is_essential: bool = False) -> Right:
    if refusal is not None:
        named = _NAMED.search(str(refusal.response.get("Error", {}).get("Message", "")))
        action = named[1] if named else action
    return Right(action, refusal is None, needed_for, is_essential)


def _allowed(call: Callable[[], Any], fine: tuple[str, ...] = ()) -> ClientError | None:
    """Return the refusal, or None: it was done, or what it asks for is not there. Raises other errors of boto3, but not
    those of a server that has no such request."""
    try:
        call()
    except ClientError as error:
        if kind_of(error) is AccessDenied and code_of(error) not in fine:
            return error
        kind = kind_of(error)
        if code_of(error) in fine or kind is ObjectMissing or not _is_of_the_store(error):
            return None
        raise
    return None


def _is_of_the_store(error: ClientError) -> bool:
    """Return whether the store failed, rather than that it does not know or take the request."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 and status != 501
