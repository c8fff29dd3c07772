"""A directory as a destination: a disk, a NAS, and the default `./archive`.

    <root>/<key>                     an object, always whole
    <root>/.uploads/<id>/data        an unfinished upload: parts at their offsets
    <root>/.uploads/<id>/parts       its journal: the parts that are durable, one line each
    <root>/.uploads/<id>/key         the key of the object to be
    <root>/.uploads/<id>.put         an unfinished small object

An object appears by `link` (which never replaces) or `rename` (which replaces atomically), after its bytes were read
back and flushed. A failed flush is never retried, because a second one succeeds without having written (fsync(2)): the
object is written again from the start. No symbolic link below the root is followed (directories.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from storage_backends.base import MAX_KEY_BYTES, Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec
from storage_backends.conditional import with_conditions
from storage_backends.destination_url import DestinationUrl
from storage_backends.equal import equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    BadDestinationUrl,
    InvalidKey,
    ObjectChanged,
    ObjectMissing,
    StorageError,
)
from storage_backends.filesystem.directories import flush, open_folder, walk
from storage_backends.filesystem.errors import translate, translated
from storage_backends.filesystem.files import check_file, described, opened_file, write_all
from storage_backends.filesystem.root import Root, entries_of
from storage_backends.filesystem.upload import TOKEN, FilesystemUpload, remove_upload
from storage_backends.operation import Operation

LIMITS = Limits(
    min_part_bytes=1,
    max_part_bytes=2**40,
    max_parts=100_000,  # `resume` reads the whole journal: some megabytes
    part_multiple_bytes=1,
    max_object_bytes=2**63 - 1,
    parallel_parts=True,
    conditional_create=True,
    conditional_replace=True,
)


def open_backend(url: DestinationUrl) -> FilesystemBackend:
    url.only_options(())
    if not url.prefix.startswith("/"):
        raise BadDestinationUrl("a file destination is an absolute directory, as in file:///srv/archive")
    return FilesystemBackend(Path(url.prefix))


class FilesystemBackend:
    """See `storage_backends.base.StorageBackend`. Creates the root at first use when its parent exists."""

    def __init__(self, root: Path) -> None:
        self._root = Root(root)
        self.name = self._root.name

    @property
    def limits(self) -> Limits:
        return with_conditions(LIMITS, creates=self._root.links, replaces=self._root.locks)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = self._doing("put", spec.key, "storing")
        with translated(doing), self._root.uploads() as uploads:
            temporary = f"{uuid.uuid4().hex}.put"
            file = os.open(
                temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=uploads
            )
            try:
                write_all(file, data, 0)
                flush(file, data_only=True)
                check_file(file, len(data), crc32c, doing)
                try:
                    return self._root.publish(spec, uploads, temporary, file, crc32c)
                except PermissionError as error:  # the file or its directory is immutable or append-only
                    refusal = translate(error, doing)
                    assert isinstance(refusal, AccessDenied)
                    return equal_or_raise(refusal, self, spec.key, len(data), crc32c)
            finally:
                os.close(file)
                # moved by `rename`; or nothing may be deleted here
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    os.unlink(temporary, dir_fd=uploads)

    def begin(self, spec: ObjectSpec) -> FilesystemUpload:
        doing = self._doing("begin", spec.key, "beginning the upload of")
        token = uuid.uuid4().hex
        with doing:
            if spec.part_bytes <= 0:
                raise StorageError(f"{doing}: part_bytes must be positive")
            self._root.segments(spec.key)
        with translated(doing), self._root.uploads() as uploads:
            os.mkdir(token, dir_fd=uploads)
            try:
                with open_folder(token, uploads) as folder:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    with opened_file("parts", flags, folder), opened_file("data", flags, folder) as data:
                        if spec.size_bytes:
                            # fail on a full disk before the work
                            os.posix_fallocate(data, 0, spec.size_bytes)
                    with opened_file("key", flags, folder) as named:
                        write_all(named, spec.key.encode(), 0)
                    os.fsync(folder)
                os.fsync(uploads)
            except OSError:
                remove_upload(token, uploads)
                raise
        return FilesystemUpload(self, self._root, spec, token)

    def resume(self, spec: ObjectSpec, token: str) -> FilesystemUpload:
        upload = FilesystemUpload(self, self._root, spec, token)
        with self._doing("resume", spec.key, "resuming the upload of"):
            upload.parts()
        return upload

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        try:
            with translated(self._doing("stat", key, "looking at")), self._root.file(key) as file:
                return described(key, os.fstat(file))
        except ObjectMissing:
            return None

    def read(
        self,
        key: ObjectKey,
        start: int = 0,
        length_bytes: int | None = None,
        *,
        if_match: str | None = None,
    ) -> bytes:
        doing = self._doing("read", key, "reading")
        with translated(doing), self._root.file(key) as file:
            _require_match(key, file, if_match, doing)
            size = os.fstat(file).st_size
            left = max(0, size - start) if length_bytes is None else max(0, min(length_bytes, size - start))
            pieces = []
            while left:
                piece = os.pread(file, left, start)
                if not piece:
                    break  # truncated by somebody else meanwhile
                pieces.append(piece)
                start += len(piece)
                left -= len(piece)
            _require_match(key, file, if_match, doing)  # again: somebody may have written to the file
            return b"".join(pieces)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        doing = Operation("list", self.name, None, f"listing {prefix!r}")
        start = prefix.rpartition("/")[0]
        try:
            waiting = ["/".join(self._root.segments(start))] if start else [""]
        except InvalidKey:
            return  # no object can have such a key
        while waiting:  # memory: one directory's files and the tree's directories
            folder = waiting.pop()
            with translated(doing), self._root.opened() as root:
                files, folders = entries_of(folder, root)
            waiting += [path for path in folders if path.startswith(prefix)]
            yield from (info for info in files if info.key.startswith(prefix))

    def delete(self, key: ObjectKey) -> None:
        with translated(self._doing("delete", key, "deleting")), self._root.opened() as root:
            *folders, last = self._root.segments(key)
            try:
                with walk(folders, root) as folder:
                    if self._root.named_otherwise(key, root) is not None:
                        return  # the file is another key's
                    os.unlink(last, dir_fd=folder)
                    os.fsync(folder)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return

    def abort_stale_uploads(self, older_than: timedelta) -> int:
        limit = time.time() - older_than.total_seconds()
        stale = 0
        doing = Operation("abort_stale_uploads", self.name, None, "aborting stale uploads")
        with translated(doing), self._root.uploads() as uploads, os.scandir(uploads) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # completed meanwhile
                    if entry.stat(follow_symlinks=False).st_ctime > limit:
                        continue
                    if TOKEN.fullmatch(entry.name):
                        remove_upload(entry.name, uploads)
                    elif entry.name.endswith(".put"):
                        os.unlink(entry.name, dir_fd=uploads)
                    else:
                        continue
                    stale += 1
        return stale

    def path_of(self, key: ObjectKey) -> str:
        """See `storage_backends.optional.GivesPaths`."""
        with self._doing("path_of", key, "finding the file of"):
            return str(self._root.path.joinpath(*self._root.segments(key)))

    def abort_uploads(self, older_than: timedelta, ours: Callable[[str], bool]) -> int:
        """See `storage_backends.optional.AbortsUploads`. An upload that an earlier version began names no key: it is
        left to `abort_stale_uploads`."""
        limit = time.time() - older_than.total_seconds()
        doing, aborted = Operation("abort_uploads", self.name, None, "aborting uploads"), 0
        with translated(doing), self._root.uploads() as uploads, os.scandir(uploads) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # completed meanwhile
                    if not TOKEN.fullmatch(entry.name) or entry.stat(follow_symlinks=False).st_ctime > limit:
                        continue
                    flags = os.O_RDONLY | os.O_CLOEXEC
                    with (
                        open_folder(entry.name, uploads) as folder,
                        opened_file("key", flags, folder) as named,
                    ):
                        key = os.pread(named, MAX_KEY_BYTES, 0).decode(errors="replace")
                    if ours(key):
                        remove_upload(entry.name, uploads)
                        aborted += 1
        return aborted

    def remove_empty_folders(self, prefix: str) -> None:
        """See `storage_backends.optional.RemovesEmptyFolders`."""
        doing = Operation("remove_empty_folders", self.name, None, f"removing empty folders in {prefix!r}")
        with translated(doing), self._root.opened() as root:
            waiting, found = [prefix], []
            while waiting:
                folder = waiting.pop()
                found.append(folder)
                waiting += entries_of(folder, root)[1]
            for folder in reversed(found):
                *parents, last = self._root.segments(folder)
                with (
                    contextlib.suppress(FileNotFoundError, NotADirectoryError),
                    walk(parents, root) as parent,
                ):
                    try:
                        os.rmdir(last, dir_fd=parent)
                    except OSError as error:
                        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                            raise

    def close(self) -> None:
        """Do nothing: no file is open between calls."""

    def _doing(self, name: str, key: ObjectKey, verb: str) -> Operation:
        return Operation(name, self.name, key, verb)


def _require_match(key: ObjectKey, file: int, etag: str | None, doing: Operation) -> None:
    if etag is not None and etag != described(key, os.fstat(file)).etag:
        raise ObjectChanged(f"{doing}: the key holds another object")
