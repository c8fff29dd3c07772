"""One resumable upload session of Google Cloud Storage."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping, Sequence

from archiver.http import waiting
from storage_backends import crc32c as crc
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec, Part, StorageBackend
from storage_backends.equal import equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    ChecksumRejected,
    ObjectExists,
    StorageError,
    UploadGone,
)
from storage_backends.gcs.answers import bytes_held
from storage_backends.gcs.bucket import Bucket
from storage_backends.gcs.errors import Answer, refused, translated
from storage_backends.operation import Operation

MULTIPLE_BYTES = 256 * 2**10

_SESSION_ENDED = (404, 410, 499)


class GcsUpload:
    """See `storage_backends.base.Upload`. One writer at a time; parts in order (`limits.parallel_parts` is False)."""

    def __init__(
        self, store: StorageBackend, bucket: Bucket, spec: ObjectSpec, identity: str, uri: str
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._spec = spec
        self._identity = identity
        self._uri = uri
        self._aborted = False

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return f"{self._identity} {self._uri}"

    def parts(self) -> Mapping[int, Part] | None:
        return None  # a session knows how many bytes it holds, not the parts and their checksums

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        doing = self._doing("put_part", f"sending part {number} of")
        return self._bucket.retry(doing, lambda: waiting.complete(self.send_part(number, data, crc32c)))

    async def send_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        """Do what `put_part` does, but attempt it once: see `storage_backends.optional.SendsParts`."""
        doing = self._doing("put_part", f"sending part {number} of")
        with doing:
            return await self._send_part(number, data, crc32c, doing)

    async def _send_part(self, number: int, data: Buffer, crc32c: int, doing: Operation) -> Part:
        crc.check(data, crc32c, doing)
        if not 0 < len(data) <= self._spec.part_bytes:
            raise StorageError(f"{doing}: it does not fit its slot of {self._spec.part_bytes} bytes")
        self._refuse_aborted(doing)
        start = (number - 1) * self._spec.part_bytes
        kept = len(data) - len(data) % MULTIPLE_BYTES
        sent = 0
        while sent < kept:
            span = {"Content-Range": f"bytes {start + sent}-{start + kept - 1}/*"}
            piece = data if (sent, kept) == (0, len(data)) else memoryview(data)[sent:kept]
            answer = await self._request("PUT", doing, span, piece)
            held = bytes_held(answer) - start
            if held <= sent:
                raise UploadGone(f"{doing}: the session holds only {held + start} bytes; restart the upload")
            sent = held
        rest = base64.b64encode(memoryview(data)[kept:]).decode()
        return Part(number, len(data), crc32c, rest)

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        doing = self._doing("complete", "completing")
        with doing:
            return self._complete(parts, crc32c, doing)

    def _complete(self, parts: Sequence[Part], crc32c: int, doing: Operation) -> ObjectInfo:
        self._refuse_aborted(doing)
        made, size = crc.of_parts(parts), sum(part.size_bytes for part in parts)
        if made != crc32c:
            raise ChecksumRejected(f"{doing}: the parts make CRC32C {made:08x}, not {crc32c:08x}")
        for place, part in enumerate(parts, start=1):
            if part.number != place or (part.size_bytes != self._spec.part_bytes and place != len(parts)):
                raise StorageError(f"{doing}: part {part.number} is out of order")
        try:
            rest = base64.b64decode(parts[-1].tag, validate=True) if parts else b""
        except binascii.Error:
            unknown = f"{doing}: its last part was recorded in a format that this version does not know"
            raise UploadGone(unknown) from None
        headers = {
            "Content-Range": f"bytes {size - len(rest)}-{size - 1}/{size}" if rest else f"bytes */{size}",
            "x-goog-hash": f"crc32c={crc.to_base64(crc32c)}",
        }
        try:
            answer = self._retried("PUT", doing, headers, rest)
        except (UploadGone, ObjectExists):
            done = self._bucket.made_by(self._spec, self._identity, size)
            if done is None:
                raise
            return done
        except AccessDenied as refusal:
            return equal_or_raise(refusal, self._store, self._spec.key, size, crc32c)
        if answer.status == 308:
            raise UploadGone(
                f"{doing}: the session holds {bytes_held(answer)} of {size} bytes; restart the upload"
            )
        return waiting.complete(self._bucket.verify(self._spec, answer, self._identity, size, crc32c, doing))

    def abort(self) -> None:
        self._aborted = True
        with contextlib.suppress(UploadGone):  # 499: the session was cancelled
            self._retried("DELETE", self._doing("abort", "aborting the upload of"), {}, b"")

    def _retried(self, method: str, doing: Operation, headers: Mapping[str, str], data: Buffer) -> Answer:
        return self._bucket.retry(
            doing, lambda: waiting.complete(self._request(method, doing, headers, data))
        )

    async def _request(
        self, method: str, doing: Operation, headers: Mapping[str, str], data: Buffer
    ) -> Answer:
        """Send one request to the session. Return successes and "Resume Incomplete" (308). Raises UploadGone,
        ObjectExists, ChecksumRejected and the other errors of `refused`."""
        with translated(doing):
            requests = await self._bucket.requests()
            answer = await requests.session(method, self._uri, headers, data)
            if answer.status in _SESSION_ENDED:
                gone = f"{doing}: {answer.status}: the session has ended or is not known"
                raise UploadGone(gone, status=answer.status)
            incomplete = answer.status == 308 and answer.header("location") is None
            if not answer.ok and not incomplete:
                raise refused(answer, doing)
        return answer

    def _refuse_aborted(self, doing: Operation) -> None:
        if self._aborted:
            raise UploadGone(f"{doing}: it was aborted")

    def _doing(self, name: str, verb: str) -> Operation:
        return Operation(name, self._bucket.name, self._spec.key, verb)
