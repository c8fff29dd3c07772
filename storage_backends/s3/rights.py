"""Which rights the credentials of an S3 destination have, by trying each with one request.

AWS has no question for it that needs no right of its own (iam:SimulatePrincipalPolicy). Rights that could only be
tried by changing something (s3:DeleteObjectVersion, s3:PutLifecycleConfiguration, s3:BypassGovernanceRetention) are
not tried.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from storage_backends.base import ObjectKey, ObjectSpec
from storage_backends.errors import AccessDenied
from storage_backends.optional import Right
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.errors import code_of, kind_of, needed, status_of

_NAMED = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)")
"""In AWS's answer, and where it is, the right that is missing."""

_LOCKED_FOR = timedelta(seconds=30)  # the probe, to try the lock
_BODY = b"Written by the recording archiver to test its permissions. Safe to delete.\n"
_OF_OPTIONS: Mapping[str, tuple[str, str]] = {
    "Tagging": ("s3:PutObjectTagging", "the tags of the destination"),
    "ACL": ("s3:PutObjectAcl", "the ACL of the destination"),
    "ServerSideEncryption": ("kms:GenerateDataKey", "the encryption of the destination"),
}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Of one request. `granted`: None when the server failed to take the request for another reason than a right."""

    granted: bool | None
    named: str | None = None  # the right that is missing, by AWS's answer


def tried(bucket: Bucket, probe: ObjectKey) -> Iterator[Right]:
    """See `storage_backends.optional.TellsRights`. Raises boto3's errors for a server that fails."""
    listing = _try(lambda: bucket.client.list_objects_v2(**bucket.listed, Prefix=bucket.prefix, MaxKeys=1))
    yield _of(listing, "s3:ListBucket", "telling what is there from what is not", is_essential=True)
    written = yield from _writing(bucket, probe)
    if written:
        read = _try(lambda: _read(bucket, probe))
        yield _of(read, "s3:GetObject", "reading back and verifying", is_essential=True)
        yield from _locking(bucket, probe)
    yield from _uploading(bucket, probe)
    if written:
        deleting = _try(lambda: bucket.writing_client.delete_object(**bucket.address(probe)))
        yield _of(
            deleting, "s3:DeleteObject", "removing probes and replaced records (doctor/, checks/, ends/)"
        )
    rules = _try(
        lambda: bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.bucket),
        fine=("NoSuchLifecycleConfiguration",),
    )
    yield _of(rules, "s3:GetLifecycleConfiguration", "reading the lifecycle rules in `archiver doctor`")
    yield from _not_needed(bucket, may_list=listing.granted is True)


def _read(bucket: Bucket, probe: ObjectKey) -> None:
    bucket.client.get_object(**bucket.address(probe))["Body"].read()


def _writing(bucket: Bucket, probe: ObjectKey) -> Generator[Right, None, bool]:
    """Return whether the probe is there."""
    options = bucket.settings.of_new_object(ObjectSpec(probe, "text/plain"))

    def put(chosen: Mapping[str, Any]) -> _Outcome:
        request = {**bucket.address(probe), **chosen, "Body": _BODY}
        return _try(lambda: bucket.writing_client.put_object(**request))

    whole = put(options)
    if whole.granted is not False:
        yield Right("s3:PutObject", whole.granted, "storing", is_essential=True)
        return whole.granted is True
    plain = {
        name: value for name, value in options.items() if name in ("ContentType", "Metadata", "RequestPayer")
    }
    if put(plain).granted is not True:
        yield _of(whole, "s3:PutObject", "storing", is_essential=True)
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
        put = _try(
            lambda: bucket.writing_client.put_object_retention(**bucket.address(probe), Retention=retention)
        )
        yield _of(put, "s3:PutObjectRetention", "locking what is archived", is_essential=True)
        get = _try(lambda: bucket.client.get_object_retention(**bucket.address(probe)))
        yield _of(get, "s3:GetObjectRetention", "telling a longer lock from a refusal")


def _uploading(bucket: Bucket, probe: ObjectKey) -> Iterator[Right]:
    client, begun = bucket.writing_client, []
    listing = _try(lambda: client.list_multipart_uploads(**bucket.listed, Prefix=bucket.prefix, MaxUploads=1))
    yield _of(listing, "s3:ListBucketMultipartUploads", "ending uploads that were left unfinished")
    options = bucket.settings.of_new_object(ObjectSpec(probe, "text/plain"))
    request = {**bucket.address(probe), **options}
    _try(lambda: begun.append(client.create_multipart_upload(**request)))
    if not begun:
        return  # the right to write is missing, which is told
    upload = {**bucket.address(probe), "UploadId": needed(begun[0], "UploadId")}
    parts = _try(lambda: client.list_parts(**upload))
    yield _of(parts, "s3:ListMultipartUploadParts", "resuming large objects", is_essential=True)
    ending = _try(lambda: client.abort_multipart_upload(**upload))
    yield _of(
        ending, "s3:AbortMultipartUpload", "ending unfinished uploads, which are billed", is_essential=True
    )


def _not_needed(bucket: Bucket, *, may_list: bool) -> Iterator[Right]:
    client, name = bucket.client, {"Bucket": bucket.bucket}
    # a server without these requests may answer them with something else, as rclone does with a list
    policy = _try(
        lambda: json.loads(client.get_bucket_policy(**name)["Policy"]), fine=("NoSuchBucketPolicy",)
    )
    yield Right("s3:GetBucketPolicy", policy.granted)
    acl = _try(lambda: client.get_bucket_acl(**name)["Grants"])
    yield Right("s3:GetBucketAcl", acl.granted)
    yield Right("s3:ListAllMyBuckets", _try(client.list_buckets).granted)
    if bucket.prefix and may_list:  # without the right to list, a missing key answers 403 too
        outside = f"{secrets.token_hex(16)}/not-there"
        head = _try(lambda: client.head_object(**bucket.listed, Key=outside), fine=("404", "NoSuchKey"))
        yield Right(f"s3:GetObject outside of {bucket.prefix}", head.granted)


def _of(outcome: _Outcome, action: str, needed_for: str, *, is_essential: bool = False) -> Right:
    return Right(outcome.named or action, outcome.granted, needed_for, is_essential)


def _try(call: Callable[[], Any], fine: tuple[str, ...] = ()) -> _Outcome:
    """`fine`: codes that say as well that it may be asked. Raises the errors of a server that fails."""
    try:
        call()
    except ClientError as error:
        if code_of(error) in fine:
            return _Outcome(True)
        if kind_of(error) is AccessDenied:
            named = _NAMED.search(str(error.response.get("Error", {}).get("Message", "")))
            return _Outcome(False, named[1] if named else None)
        if status_of(error) >= 500 and status_of(error) != 501:
            raise
        return _Outcome(None)
    except (KeyError, ValueError):
        return _Outcome(None)  # not the answer to this request
    return _Outcome(True)
