"""One upload to a directory: parts at their offsets in one file, and a journal of those that are durable."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence

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
    ObjectMissing,
    StorageError,
    UploadGone,
)
from storage_backends.filesystem.directories import NotFlushed, flush, open_folder, walk
from storage_backends.filesystem.errors import FULL, translate, translated
from storage_backends.filesystem.files import check_file, described, opened_file, write_all
from storage_backends.filesystem.root import Root
from storage_backends.operation import Operation

TOKEN = re.compile(r"[0-9a-f]{32}")
_JOURNAL_LINE = re.compile(rb"([0-9]+) (?:-|([0-9]+) ([0-9a-f]{8}))")


class _Discarded(UploadGone):
    """The upload was discarded because a flush failed."""


class FilesystemUpload:
    """See `storage_backends.base.Upload`."""

    def __init__(self, store: StorageBackend, root: Root, spec: ObjectSpec, token: str) -> None:
        self._store = store
        self._root = root
        self._spec = spec
        self._token = token

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return self._token

    def parts(self) -> Mapping[int, Part] | None:
        doing = self._doing("parts", "listing the parts of")
        try:
            with (
                self._opened(doing) as folder,
                opened_file("parts", os.O_RDONLY, folder) as journal,
            ):
                return _parse_journal(os.pread(journal, os.fstat(journal).st_size, 0))
        except UploadGone:
            stored = self._store.stat(self._spec.key) if TOKEN.fullmatch(self._token) else None
            if stored is None or stored.size_bytes != self._spec.size_bytes:
                raise
            return None  # perhaps completed with a lost answer: `complete` compares the content

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        doing = self._doing("put_part", f"sending part {number} of")
        with doing:
            if number < 1 or len(data) > self._spec.part_bytes:
                raise StorageError(f"{doing}: it does not fit its slot of {self._spec.part_bytes} bytes")
            crc.check(data, crc32c, doing)
        with (
            self._opened(doing) as folder,
            self._discarded_when_not_flushed(doing),
            opened_file("parts", os.O_WRONLY | os.O_APPEND, folder) as journal,
        ):
            # a part that is sent again does not count while its bytes are being replaced
            os.write(journal, b"\n%d -\n" % number)
            with opened_file("data", os.O_WRONLY, folder) as file:
                write_all(file, data, (number - 1) * self._spec.part_bytes)
                flush(file, data_only=True)
            os.write(journal, b"%d %d %08x\n" % (number, len(data), crc32c))
            flush(journal, data_only=True)
        return Part(number, len(data), crc32c, f"{crc32c:08x}")

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        doing = self._doing("complete", "completing")
        with doing:
            return self._complete(parts, crc32c, doing)

    def _complete(self, parts: Sequence[Part], crc32c: int, doing: Operation) -> ObjectInfo:
        size = sum(part.size_bytes for part in parts)
        try:
            with (
                self._opened(doing) as folder,
                self._discarded_when_not_flushed(doing),
                opened_file("data", os.O_RDWR, folder) as file,
            ):
                self._check_parts(parts, folder, doing)
                os.ftruncate(file, size)
                check_file(file, size, crc32c, doing)
                flush(file)
                info = self._root.publish(self._spec, folder, "data", file, crc32c)
        except _Discarded:
            raise
        except (UploadGone, FileNotFoundError) as gone:
            done = self._already_completed(size, crc32c, doing)
            if done is None:
                raise UploadGone(f"{doing}: no such upload") from gone
            info = done
        except AccessDenied as refusal:
            return equal_or_raise(refusal, self._store, self._spec.key, size, crc32c)
        with contextlib.suppress(AccessDenied):  # nothing may be deleted here
            self.abort()  # the rest of the upload: the object has its own name now
        return info

    def abort(self) -> None:
        with translated(self._doing("abort", "aborting the upload of")), self._root.uploads() as uploads:
            remove_upload(self._token, uploads)

    @contextlib.contextmanager
    def _opened(self, doing: Operation) -> Iterator[int]:
        """The upload's own directory. Raises UploadGone."""
        with translated(doing), self._root.uploads() as uploads:
            gone = UploadGone(f"{doing}: no such upload")
            if not TOKEN.fullmatch(self._token):
                raise gone
            with contextlib.ExitStack() as stack:
                try:
                    folder = stack.enter_context(open_folder(self._token, uploads))
                except (FileNotFoundError, NotADirectoryError):
                    raise gone from None
                try:
                    yield folder
                except FileNotFoundError:  # aborted meanwhile
                    raise gone from None

    @contextlib.contextmanager
    def _discarded_when_not_flushed(self, doing: Operation) -> Iterator[None]:
        """Discard the upload when a flush fails: parts written before may be lost as well."""
        try:
            yield
        except NotFlushed as error:
            with contextlib.suppress(StorageError):
                self.abort()
            if error.errno in FULL:
                raise
            what = translate(error, doing)
            raise _Discarded(f"{what}; its parts may not be on the disk: restart the upload") from error

    def _doing(self, name: str, verb: str) -> Operation:
        return Operation(name, self._root.name, self._spec.key, verb)

    def _check_parts(self, parts: Sequence[Part], folder: int, doing: Operation) -> None:
        with opened_file("parts", os.O_RDONLY, folder) as journal:
            held = _parse_journal(os.pread(journal, os.fstat(journal).st_size, 0))
        for place, part in enumerate(parts, start=1):
            full = part.size_bytes == self._spec.part_bytes or place == len(parts)
            if part.number != place or not full:
                raise StorageError(f"{doing}: part {part.number} is out of order")
            if held.get(part.number) != part:
                raise UploadGone(f"{doing}: part {part.number} is missing")

    def _already_completed(self, size_bytes: int, crc32c: int, doing: Operation) -> ObjectInfo | None:
        """Return the object that an earlier `complete` made, recognised by its content. Flushes it: the earlier call
        may not have."""
        folders = self._spec.key.split("/")[:-1]
        try:
            with (
                translated(doing),
                self._root.file(self._spec.key) as file,
                self._root.opened() as root,
                walk(folders, root) as folder,
            ):
                check_file(file, size_bytes, crc32c, doing)
                try:
                    flush(file)
                    flush(folder)
                except NotFlushed:
                    return None  # to be written again
                info = described(self._spec.key, os.fstat(file))
        except (ObjectMissing, ChecksumRejected):
            return None
        return ObjectInfo(info.key, size_bytes, crc32c, info.etag, self._spec.content_type, info.updated_at)


def _parse_journal(text: bytes) -> dict[int, Part]:
    """Return the durable parts. The last line about a part counts; a line without its end was cut by a crash."""
    parts: dict[int, Part] = {}
    for line in text.split(b"\n")[:-1]:
        match = _JOURNAL_LINE.fullmatch(line)
        if match is None:
            continue
        number = int(match[1])
        parts.pop(number, None)
        if match[2] is not None:
            parts[number] = Part(number, int(match[2]), int(match[3], 16), match[3].decode())
    return parts


def remove_upload(token: str, uploads: int) -> None:
    if not TOKEN.fullmatch(token):
        return
    try:
        with open_folder(token, uploads) as folder, os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=folder)
        os.rmdir(token, dir_fd=uploads)
    except FileNotFoundError:
        return
