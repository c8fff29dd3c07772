"""The data path to S3: one PUT for an object or a part, with a checksum that the server must verify.

CRC32C first, Content-MD5 when that is refused: what an endpoint supports is learned from its answers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from botocore.exceptions import ClientError

from storage_backends import crc32c as crc
from storage_backends.base import Buffer
from storage_backends.errors import ChecksumRejected, StorageError
from storage_backends.s3.errors import kind_of, needed
from storage_backends.s3.requests import S3Requests

_Send = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class Checksum(Enum):
    AUTO = "auto"
    CRC32C = "crc32c"
    MD5 = "md5"


class Confirmed(Enum):
    """The checksum by which the server confirmed the bytes. The value is part of a part's tag."""

    CRC32C = "c"
    MD5 = "m"
    NOT = "-"


@dataclass(frozen=True, slots=True)
class Receipt:
    etag: str
    confirmed: Confirmed


class S3DataPath:
    """`put` and `put_part` raise boto3's errors, and ChecksumRejected. Thread-safe."""

    def __init__(self, requests: Callable[[], S3Requests], bucket: str, checksum: Checksum) -> None:
        self._requests = requests
        self._bucket = bucket
        self._checksum = checksum
        self._server_checks_crc32c = False  # it has returned the right one

    @property
    def crc32c_refused(self) -> bool:
        """Return whether parts are sent with Content-MD5: by setting, or because the server refused CRC32C."""
        return self._checksum is Checksum.MD5

    def put(self, key: str, data: Buffer, crc32c: int, options: Mapping[str, Any]) -> Awaitable[Receipt]:
        request = {"Bucket": self._bucket, "Key": key, "Body": data, **options}
        return self._send(self._requests().put_object, request, crc32c, whole=True)

    def put_part(
        self, address: Mapping[str, str], number: int, data: Buffer, crc32c: int, *, crc32c_declared: bool
    ) -> Awaitable[Receipt]:
        """`address`: Bucket, Key and UploadId. `crc32c_declared`: the upload was created with that algorithm; AWS
        refuses a part with CRC32C otherwise."""
        request = {**address, "PartNumber": number, "Body": data}
        return self._send(
            self._requests().upload_part, request, crc32c, whole=False, crc32c_allowed=crc32c_declared
        )

    async def _send(
        self,
        send: _Send,
        request: Mapping[str, Any],
        crc32c: int,
        *,
        whole: bool,
        crc32c_allowed: bool = True,
    ) -> Receipt:
        body: Buffer = request["Body"]
        if not self._server_checks_crc32c:
            _check_unchanged(body, crc32c)
        if self._checksum is Checksum.MD5 or not crc32c_allowed:
            return await self._with_md5(send, request, crc32c)
        sent = crc.to_base64(crc32c)
        try:
            answer = await send({**request, "ChecksumCRC32C": sent})
        except ClientError as error:
            may_be_unknown_to_it = kind_of(error) in (StorageError, ChecksumRejected)
            if self._checksum is Checksum.CRC32C or self._server_checks_crc32c or not may_be_unknown_to_it:
                raise
            receipt = await self._with_md5(send, request, crc32c)
            self._checksum = Checksum.MD5  # learned: the same bytes are accepted without the CRC32C
            return receipt
        reported = answer.get("ChecksumCRC32C")
        if reported == sent:
            self._server_checks_crc32c = True
            return Receipt(needed(answer, "ETag"), Confirmed.CRC32C)
        answered = crc.from_base64(reported)
        if answered is not None and self._server_checks_crc32c:
            raise ChecksumRejected(f"the server received CRC32C {answered:08x}, {crc32c:08x} was sent")
        # It ignores CRC32C, or computes another (moto without the crc32c package). The ETag may verify a small object,
        # for less than reading it back; that of a part says nothing about the whole on many such servers.
        if whole and _is_md5(needed(answer, "ETag"), body):
            return Receipt(needed(answer, "ETag"), Confirmed.MD5)
        return Receipt(needed(answer, "ETag"), Confirmed.NOT)

    async def _with_md5(self, send: _Send, request: Mapping[str, Any], crc32c: int) -> Receipt:
        body: Buffer = request["Body"]
        if self._server_checks_crc32c:  # else the caller has checked
            _check_unchanged(body, crc32c)
        md5 = hashlib.md5(body, usedforsecurity=False)
        answer = await send({**request, "ContentMD5": base64.b64encode(md5.digest()).decode()})
        same = needed(answer, "ETag").strip('"') == md5.hexdigest()  # not with SSE-KMS, which is no error
        return Receipt(needed(answer, "ETag"), Confirmed.MD5 if same else Confirmed.NOT)


def _check_unchanged(body: Buffer, crc32c: int) -> None:
    if crc.crc32c_of(body) != crc32c:
        raise ChecksumRejected(
            f"sending {len(body)} bytes: they changed in memory since their CRC32C was computed"
        )


def _is_md5(etag: str, body: Buffer) -> bool:
    return etag.strip('"') == hashlib.md5(body, usedforsecurity=False).hexdigest()
