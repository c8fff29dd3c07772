"""What one PUT of an object stores, and PUTs under a condition."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from botocore.exceptions import ClientError

from storage_backends.base import Buffer, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.errors import ObjectChanged, ObjectExists, ObjectMissing
from storage_backends.operation import Operation
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.data_path import Confirmed, Receipt
from storage_backends.s3.errors import kind_of, translated


def stored(spec: ObjectSpec, size_bytes: int, crc32c: int, receipt: Receipt) -> ObjectInfo:
    """Describe what a PUT stored, with the checksum if the server confirmed it."""
    verified = crc32c if receipt.confirmed is not Confirmed.NOT else None
    return ObjectInfo(spec.key, size_bytes, verified, receipt.etag, spec.content_type, datetime.now(UTC))


def put_conditionally(
    bucket: Bucket,
    stat: Callable[[ObjectKey], ObjectInfo | None],
    spec: ObjectSpec,
    data: Buffer,
    crc32c: int,
    doing: Operation,
) -> ObjectInfo:
    """Store an object under the condition of `spec`, in the way that the server was seen to honour.

    Raises ObjectExists, ObjectChanged, StorageError."""
    # recognises the object as ours when the answer to an earlier attempt was lost
    identity = secrets.token_hex(16)
    options = bucket.settings.of_new_object(spec, identity)
    bucket.connection.get()  # learns whether this is AWS

    def send(condition: Mapping[str, str]) -> ObjectInfo:
        key, request = bucket.prefix + spec.key, {**options, **condition}
        try:
            receipt = bucket.with_retries(lambda: bucket.data.put(key, data, crc32c, request))
        except ClientError as error:
            lost = condition and kind_of(error) in (ObjectExists, ObjectMissing)
            done = bucket.made_by(spec, identity, len(data)) if lost else None
            if done is None:
                raise
            return done
        return stored(spec, len(data), crc32c, receipt)

    def create(conditional: bool) -> ObjectInfo:
        with translated(doing):
            return send({"IfNoneMatch": "*"} if conditional else {})

    def change(etag: str | None) -> ObjectInfo:
        try:
            with translated(doing):
                return send({} if etag is None else {"IfMatch": etag})
        except (ObjectExists, ObjectMissing) as error:  # 412, and AWS's 404 where no object is
            raise ObjectChanged(str(error), status=error.status) from error

    def etag_now() -> str | None:
        info = stat(spec.key)
        return None if info is None else info.etag

    if spec.if_match is None:
        return bucket.conditions.create(lambda: stat(spec.key) is not None, create, doing)
    never = f'"{secrets.token_hex(16)}"'
    return bucket.conditions.replace(spec.if_match, etag_now, change, never, doing)
