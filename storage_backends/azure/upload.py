"""One upload in blocks. Azure has no id of an upload: blocks belong to the key, whoever sent them.

So the id of each block says whose it is: 16 bytes that identify the upload, the part's number, and its CRC32C. A commit
names blocks of its own upload only. Four facts of the protocol shape the code
(https://learn.microsoft.com/rest/api/storageservices/put-block-list):

- A commit discards the blocks that it does not name: of two uploads of one key, the second finds its blocks gone
  (InvalidBlockList), which is UploadGone, and restarts.
- `Uncommitted` names a block only while no commit took it, so a second commit does not quietly write the blob again.
- Nothing aborts an upload: the service discards uncommitted blocks a week after the last one.
- The ids of a key's blocks all have one length.

`begin` sends one block of one byte, number 0: it tells a missing container and a refusal before gigabytes are read, and
its presence tells `parts` that the upload still exists.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from azure.core.exceptions import ResourceNotFoundError

from archiver.http import waiting
from storage_backends import crc32c as crc
from storage_backends.azure.blocks import block_id
from storage_backends.azure.container import Container, confirmed_md5, md5_of
from storage_backends.azure.errors import Answer, translated
from storage_backends.base import Buffer, ObjectInfo, ObjectSpec, Part, StorageBackend
from storage_backends.equal import equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    ChecksumRejected,
    ObjectExists,
    UploadGone,
)
from storage_backends.operation import Operation

_CONFIRMED, _NOT_CONFIRMED = "md5", "-"
_MARKER = b"\0"
_PROBE = 2**32 - 1  # the number of a block that no commit names


class AzureUpload:
    """See `storage_backends.base.Upload`."""

    def __init__(self, store: StorageBackend, container: Container, spec: ObjectSpec, identity: str) -> None:
        self._store = store
        self._container = container
        self._spec = spec
        self._identity = identity
        self._aborted = False

    @classmethod
    def begin(
        cls, store: StorageBackend, container: Container, spec: ObjectSpec, identity: str
    ) -> AzureUpload:
        upload = cls(store, container, spec, identity)
        doing = upload._doing("begin", "beginning the upload of")
        container.retry(doing, lambda: waiting.complete(upload._stage(0, _MARKER, 0, doing)))
        return upload

    @classmethod
    def resume(cls, store: StorageBackend, container: Container, spec: ObjectSpec, token: str) -> AzureUpload:
        """Send no request: blocks that are gone are found by `parts`, or at `complete`."""
        identity = re.fullmatch(r"az1\.([0-9a-f]{32})", token)
        if identity is None:
            with Operation("resume", container.name, spec.key, "resuming the upload of") as doing:
                raise UploadGone(f"{doing}: the token is not that of an upload to Azure")
        return cls(store, container, spec, identity[1])

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return f"az1.{self._identity}"

    def parts(self) -> Mapping[int, Part] | None:
        """Return None while the upload exists: the service does not say which blocks it has verified. Raises
        UploadGone."""
        doing = self._doing("parts", "listing the parts of")
        blob = self._container.control().get_blob_client(self._container.prefix + self._spec.key)

        def uncommitted() -> set[str]:
            try:
                return {block.id for block in blob.get_block_list("uncommitted")[1]}
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", None) == "BlobNotFound":
                    return set()
                raise

        with doing:
            if self._block_id(0, 0) not in self._container.retry(doing, uncommitted) and self._made() is None:
                raise UploadGone(f"{doing}: its blocks are gone")
        return None

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        doing = self._doing("put_part", f"sending part {number} of")
        return self._container.retry(doing, lambda: waiting.complete(self.send_part(number, data, crc32c)))

    async def send_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        """Do what `put_part` does, but attempt it once: see `storage_backends.optional.SendsParts`."""
        doing = self._doing("put_part", f"sending part {number} of")
        with translated(doing):
            crc.check(data, crc32c, doing)
            if self._aborted:
                raise UploadGone(f"{doing}: it was aborted")
            confirmed = await self._stage(number, data, crc32c, doing)
        return Part(number, len(data), crc32c, _CONFIRMED if confirmed else _NOT_CONFIRMED)

    async def _stage(self, number: int, data: Buffer, crc32c: int, doing: Operation) -> bool:
        """Send one block. Return whether the service has verified it."""
        md5 = await md5_of(data)
        answer = await self._send_block(number, crc32c, md5, data)
        if not answer.ok:
            raise self._container.refused(answer, doing)
        return confirmed_md5(answer, md5, doing) or await self._container.verifies_md5(
            self._refuses_wrong_md5
        )

    async def _refuses_wrong_md5(self) -> bool:
        return not (await self._send_block(_PROBE, 0, bytes(16), _MARKER)).ok

    def _send_block(self, number: int, crc32c: int, md5: bytes, data: Buffer) -> Coroutine[Any, Any, Answer]:
        query = f"comp=block&blockid={quote(self._block_id(number, crc32c), safe='')}"
        return self._container.put(self._spec.key, query, {}, data, md5)

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        doing = self._doing("complete", "completing")
        with doing:
            return self._complete(parts, crc32c, doing)

    def _complete(self, parts: Sequence[Part], crc32c: int, doing: Operation) -> ObjectInfo:
        if self._aborted:
            raise UploadGone(f"{doing}: it was aborted")
        made, size = crc.of_parts(parts), sum(part.size_bytes for part in parts)
        if made != crc32c:
            raise ChecksumRejected(f"{doing}: the parts make CRC32C {made:08x}, not {crc32c:08x}")
        if any(part.tag not in (_CONFIRMED, _NOT_CONFIRMED) for part in parts):
            raise UploadGone(f"{doing}: a part was recorded in a format that this version does not know")
        done = self._made(size)  # an earlier attempt, whose answer was lost
        if done is not None:
            return done
        ids = "".join(f"<Uncommitted>{self._block_id(p.number, p.crc32c)}</Uncommitted>" for p in parts)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{ids}</BlockList>'.encode()
        proven = crc32c if all(part.tag == _CONFIRMED for part in parts) else None
        headers = self._container.new_blob(self._spec, self._identity, proven)
        if self._spec.if_absent:
            headers["If-None-Match"] = "*"
        try:
            return self._container.retry(
                doing, lambda: waiting.complete(self._commit(headers, body, size, proven, doing))
            )
        except (UploadGone, ObjectExists):
            done = self._made(size)
            if done is None:
                raise
            return done
        except AccessDenied as refusal:
            return equal_or_raise(refusal, self._store, self._spec.key, size, crc32c)

    async def _commit(
        self, headers: Mapping[str, str], body: bytes, size: int, proven: int | None, doing: Operation
    ) -> ObjectInfo:
        answer = await self._container.put(
            self._spec.key, "comp=blocklist", headers, body, await md5_of(body)
        )
        if not answer.ok:
            raise self._container.refused(answer, doing)
        return self._container.stored(self._spec, answer, size, proven, doing)

    def abort(self) -> None:
        """Send no more. The service discards the blocks a week after the last one."""
        self._aborted = True

    def _made(self, size_bytes: int | None = None) -> ObjectInfo | None:
        return self._container.made_by(self._spec, self._identity, size_bytes)

    def _block_id(self, number: int, crc32c: int) -> str:
        return block_id(self._identity, number, crc32c)

    def _doing(self, name: str, verb: str) -> Operation:
        return Operation(name, self._container.name, self._spec.key, verb)
