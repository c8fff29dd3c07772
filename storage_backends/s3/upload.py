"""One multipart upload to S3."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

from storage_backends import crc32c as crc
from storage_backends.base import (
    Buffer,
    ObjectInfo,
    ObjectSpec,
    Part,
    StorageBackend,
)
from storage_backends.equal import equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    ChecksumRejected,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.operation import Operation
from storage_backends.s3.bucket import Bucket, described
from storage_backends.s3.data_path import Confirmed, Receipt
from storage_backends.s3.errors import (
    code_of,
    kind_of,
    needed,
    status_of,
    translated,
)


class S3Upload:
    """See `storage_backends.base.Upload`."""

    def __init__(self, store: StorageBackend, bucket: Bucket, spec: ObjectSpec, token: Token) -> None:
        self._store = store
        self._bucket = bucket
        self._spec = spec
        self._token = token
        self._address = bucket.address(spec.key) | {"UploadId": token.upload_id}

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return str(self._token)

    def parts(self) -> Mapping[int, Part] | None:
        held: dict[int, Part] = {}
        doing = self._doing("parts", "listing the parts of")
        with translated(doing):
            try:
                for page in self._bucket.writing_client.get_paginator("list_parts").paginate(**self._address):
                    for part in page.get("Parts", []):
                        checksum = crc.from_base64(part.get("ChecksumCRC32C"))
                        if checksum is None:
                            return None  # the server returns only ETags
                        tag = _tag(Receipt(needed(part, "ETag"), Confirmed.CRC32C))
                        number = needed(part, "PartNumber")
                        held[number] = Part(number, needed(part, "Size"), checksum, tag)
            except ClientError as error:
                kind = kind_of(error)
                if kind is StorageError:
                    return None  # a server without ListParts
                if kind in (UploadGone, ObjectMissing):
                    if self._made(self._spec.size_bytes) is not None:
                        return None  # completed with a lost answer: `complete` finds out again
                    raise UploadGone(f"{doing}: the store does not know this upload") from error
                raise
        return held

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        with self._sending(number):
            return self._bucket.with_retries(lambda: self._send_part(number, data, crc32c))

    async def send_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        """Do what `put_part` does, without retries: see `storage_backends.optional.SendsParts`."""
        with self._sending(number):
            return await self._send_part(number, data, crc32c)

    @contextlib.contextmanager
    def _sending(self, number: int) -> Iterator[None]:
        doing = self._doing("put_part", f"sending part {number} of")
        with translated(doing), _no_upload(doing):
            yield

    async def _send_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        bucket, declared = self._bucket, self._token.algorithm != "none"

        def put(headers: Mapping[str, str]) -> Awaitable[Receipt]:
            address = {**self._address, **headers}
            return bucket.data.put_part(address, number, data, crc32c, crc32c_declared=declared)

        try:
            receipt = await put(bucket.part_headers)
        except ClientError as error:
            # AWS refuses these headers with a part; a policy elsewhere may demand them with every request
            encrypting = bucket.settings.encrypting
            if kind_of(error) is not AccessDenied or bucket.part_headers == encrypting:
                raise
            try:
                receipt = await put(encrypting)
            except ParamValidationError:  # boto3 sends instead of us, and does not accept them here
                raise error from None
            bucket.part_headers = encrypting  # learned: it is accepted with them
        return Part(number, len(data), crc32c, _tag(receipt))

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        doing = self._doing("complete", "completing")
        with doing:
            return self._complete(parts, crc32c, doing)

    def _complete(self, parts: Sequence[Part], crc32c: int, doing: Operation) -> ObjectInfo:
        made = crc.of_parts(parts)
        if made != crc32c:
            raise ChecksumRejected(f"{doing}: the parts make CRC32C {made:08x}, not {crc32c:08x}")
        size = sum(part.size_bytes for part in parts)
        whole: dict[str, Any] = {}
        if self._token.algorithm == "full":
            whole = {
                "ChecksumCRC32C": crc.to_base64(crc32c),
                "ChecksumType": "FULL_OBJECT",
                "MpuObjectSize": size,
            }
        named = [_named(part) for part in parts]

        def send(conditional: bool) -> ObjectInfo:
            condition = {"IfNoneMatch": "*"} if conditional else {}
            with translated(doing), _no_upload(doing):
                try:
                    answer: Mapping[str, Any] = self._bucket.writing_client.complete_multipart_upload(
                        **self._address, MultipartUpload={"Parts": named}, **whole, **condition
                    )
                except ClientError as error:
                    # the answer to an earlier attempt, also one of boto3's, may have been lost
                    if kind_of(error) in (UploadGone, ObjectExists, ObjectMissing):
                        done = self._made(size)
                        if done is not None:
                            return done
                    if status_of(error) == 409:
                        raise UploadGone(
                            f"{doing}: 409, another write of this key was under way; restart the upload",
                            status=409,
                        ) from error
                    raise
                return self._completed(answer, parts, size, crc32c, doing)

        def theirs() -> bool:
            with translated(doing):
                return self._bucket.head(self._spec.key) is not None and self._made(size) is None

        try:
            return (
                self._bucket.conditions.create(theirs, send, doing) if self._spec.if_absent else send(False)
            )
        except AccessDenied as refusal:
            return equal_or_raise(refusal, self._store, self._spec.key, size, crc32c)

    def _completed(
        self, answer: Mapping[str, Any], parts: Sequence[Part], size: int, crc32c: int, doing: Operation
    ) -> ObjectInfo:
        if _confirms(answer, parts, crc32c):
            etag, content_type = answer.get("ETag"), self._spec.content_type
            return ObjectInfo(self._spec.key, size, crc32c, etag, content_type, datetime.now(UTC))
        stored = self._bucket.head(self._spec.key)
        if stored is None:
            raise TransientStorageError(f"{doing}: a success, yet the object does not exist")
        info = described(self._spec.key, stored)
        # a server that computes another checksum (moto) does not mean damage: reading back decides
        return info if info.crc32c == crc32c else replace(info, crc32c=None)

    def abort(self) -> None:
        with translated(self._doing("abort", "aborting the upload of")):
            try:
                self._bucket.writing_client.abort_multipart_upload(**self._address)
            except ClientError as error:
                if kind_of(error) not in (UploadGone, ObjectMissing):
                    raise

    def _doing(self, name: str, verb: str) -> Operation:
        return Operation(name, self._bucket.name, self._spec.key, verb)

    def _made(self, size_bytes: int | None) -> ObjectInfo | None:
        return self._bucket.made_by(self._spec, self._token.identity, size_bytes)


@dataclass(frozen=True, slots=True)
class Token:
    """`<id in the object's metadata>.<full | parts | none>.<the server's upload id>`"""

    identity: str
    algorithm: str
    upload_id: str

    def __str__(self) -> str:
        return f"{self.identity}.{self.algorithm}.{self.upload_id}"

    def __repr__(self) -> str:
        return "Token(...)"

    @classmethod
    def parse(cls, text: str, doing: Operation) -> Token:
        match = re.fullmatch(r"([0-9a-f]{32})\.(full|parts|none)\.(\S+)", text)
        if match is None:
            raise UploadGone(f"{doing}: the token is not one of an S3 upload")
        return cls(match[1], match[2], match[3])


@contextlib.contextmanager
def _no_upload(doing: Operation) -> Iterator[None]:
    """Raise UploadGone for a 404 without a known code: in an upload's own requests it means the upload."""
    try:
        yield
    except ClientError as error:
        if kind_of(error) is ObjectMissing:
            raise UploadGone(
                f"{doing}: {status_of(error)} {code_of(error)}", status=status_of(error) or None
            ) from error
        raise


def _tag(receipt: Receipt) -> str:
    return f"{receipt.confirmed.value} {receipt.etag}"


def _receipt(part: Part) -> Receipt:
    """Parse a tag. Raises UploadGone for one that is not ours: the upload restarts."""
    confirmed, _, etag = part.tag.partition(" ")
    try:
        return Receipt(etag, Confirmed(confirmed))
    except ValueError:
        raise UploadGone(
            f"part {part.number} was recorded in a format that this version does not know"
        ) from None


def _named(part: Part) -> dict[str, Any]:
    """Return a part as CompleteMultipartUpload names it, with its CRC32C where the server computed the same."""
    receipt = _receipt(part)
    named: dict[str, Any] = {"PartNumber": part.number, "ETag": receipt.etag}
    if receipt.confirmed is Confirmed.CRC32C:
        named["ChecksumCRC32C"] = crc.to_base64(part.crc32c)
    return named


def _confirms(answer: Mapping[str, Any], parts: Sequence[Part], crc32c: int) -> bool:
    """Return whether the response to CompleteMultipartUpload verifies the object.

    Either the server computed the CRC32C of the whole, or that of the CRC32Cs of the parts; or it verified each part
    when it arrived, and the ETag says that the object consists of exactly these.
    """
    checksum = str(answer.get("ChecksumCRC32C", ""))
    if checksum == crc.to_base64(crc32c) and answer.get("ChecksumType") == "FULL_OBJECT":
        return True
    of_checksums = crc.crc32c_of(b"".join(part.crc32c.to_bytes(4, "big") for part in parts))
    if checksum == f"{crc.to_base64(of_checksums)}-{len(parts)}":
        return True
    receipts = [_receipt(part) for part in parts]
    if any(receipt.confirmed is Confirmed.NOT for receipt in receipts):
        return False
    try:
        digests = b"".join(bytes.fromhex(receipt.etag.strip('"')) for receipt in receipts)
    except ValueError:
        return False
    etag = hashlib.md5(digests, usedforsecurity=False).hexdigest()
    return str(answer.get("ETag", "")).strip('"') == f"{etag}-{len(parts)}"
