"""A directory as a destination: for a NAS, a disk, and the default `./archive`.

    <root>/<key>                     an object: always whole
    <root>/.uploads/<id>/data        an object on its way: parts at their place
    <root>/.uploads/<id>/parts       which parts are durably in `data`, one line each
    <root>/.uploads/<id>.put         a small object on its way

An object appears by `link` (which never replaces) or `rename` (which replaces at once), after its bytes were read back
and flushed. A flush that failed is never tried again, for a second one succeeds without having written (fsync(2)): the
object is written anew from the start. No path is ever followed through a symbolic link below the root (directories.py).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import resource
import stat as stat_bits
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage_backends import crc32c as crc
from storage_backends.base import Buffer, Limits, ObjectInfo, ObjectKey, ObjectSpec, Part, object_key
from storage_backends.destination_url import DestinationUrl
from storage_backends.directories import NotFlushed, flush, open_folder, walk
from storage_backends.equal import equal_or_raise
from storage_backends.errors import (
    AccessDenied,
    BadDestinationUrl,
    BucketMissing,
    ChecksumRejected,
    DestinationFull,
    InvalidKey,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from storage_backends.folded_names import folds_case, key_of, named_otherwise

UPLOADS = ".uploads"

LIMITS = Limits(
    min_part_bytes=1,
    max_part_bytes=2**40,
    max_parts=100_000,  # the journal of parts is read whole at resume: some megabytes
    part_multiple_bytes=1,
    max_object_bytes=2**63 - 1,
    parallel_parts=True,
    conditional_create=True,
    conditional_replace=True,
)

_READ_BACK_BYTES = 2**20  # by each of the calls at once
_TOKEN = re.compile(r"[0-9a-f]{32}")
_JOURNAL_LINE = re.compile(rb"([0-9]+) (?:-|([0-9]+) ([0-9a-f]{8}))")
_CONTENT_TYPES = {  # a directory keeps none; what recordings hold, the same on every machine
    ".aac": "audio/aac",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4s": "video/iso.segment",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".srt": "application/x-subrip",
    ".ts": "video/mp2t",
    ".txt": "text/plain",
    ".vtt": "text/vtt",
    ".webm": "video/webm",
    ".zip": "application/zip",
}

# where a directory has no hard links (FUSE, SMB, FAT) or no locks (some NFS)
_NO_LINKS = {
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EINVAL,
    errno.EXDEV,
}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL}

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_OUR_KEY = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EILSEQ}


def translate(error: OSError, doing: str) -> StorageError:
    """`error` as one of ours. Whatever is not the disk's fullness, a permission, the key or the object's size is taken
    for passing (EIO, ESTALE on NFS, EMFILE): tried again, and seen by a person if it persists."""
    said = (
        f"{doing}: {os.strerror(error.errno)} ({errno.errorcode.get(error.errno, error.errno)})"
        if error.errno
        else doing
    )
    if error.errno in _FULL:
        return DestinationFull(f"{said}; free space or raise the quota")
    if error.errno == errno.EFBIG:  # this object alone: smaller ones are taken
        return StorageError(f"{said}; it is larger than {_largest_file()}")
    if error.errno in _DENIED:
        return AccessDenied(f"{said}; let this user write there, or remount it for writing")
    if error.errno in _OUR_KEY:
        return InvalidKey(
            f"{said}; a file or a symbolic link stands where the key needs a directory, or the reverse"
        )
    return TransientStorageError(said)


def _largest_file() -> str:
    """What a file may not be larger than; a file system does not tell its own limit."""
    ours, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if ours != resource.RLIM_INFINITY:
        return f"the {ours} bytes that this process may write to one file (ulimit -f), or than its file system takes"
    return "one file may be on its file system (4 GiB on FAT): use another kind, such as ext4 or XFS"


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise translate(error, doing) from error


def open_backend(url: DestinationUrl) -> FilesystemBackend:
    url.only_options(())
    if not url.prefix.startswith("/"):
        raise BadDestinationUrl("a file destination is an absolute directory, as in file:///srv/archive")
    return FilesystemBackend(Path(url.prefix))


class FilesystemBackend:
    """See `storage_backends.base.StorageBackend`. The root is made at first use when its parent exists."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made = False
        self._lock = threading.Lock()
        self._links = True  # until the file system refuses one
        self._locks = True
        self._folds: bool | None = None  # None: not looked yet

    @property
    def name(self) -> str:
        return f"file://{self._root}"

    @property
    def limits(self) -> Limits:
        return replace(LIMITS, conditional_create=self._links, conditional_replace=self._locks)

    def put(self, spec: ObjectSpec, data: Buffer, crc32c: int) -> ObjectInfo:
        doing = f"storing {spec.key!r} in {self.name}"
        with _translated(doing), self._uploads() as uploads:
            temporary = f"{uuid.uuid4().hex}.put"
            file = os.open(
                temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=uploads
            )
            try:
                _write_all(file, data, 0)
                flush(file, data_only=True)
                _check(file, len(data), crc32c, doing)
                try:
                    return self._publish(spec, uploads, temporary, file, crc32c)
                except PermissionError as error:  # immutable, append-only, or the directory is
                    refusal = translate(error, doing)
                    assert isinstance(refusal, AccessDenied)
                    return equal_or_raise(refusal, self, spec.key, len(data), crc32c)
            finally:
                os.close(file)
                with contextlib.suppress(
                    FileNotFoundError, PermissionError
                ):  # `rename` took it; nothing is deleted here
                    os.unlink(temporary, dir_fd=uploads)

    def begin(self, spec: ObjectSpec) -> FilesystemUpload:
        if spec.part_bytes <= 0:
            raise StorageError(f"beginning {spec.key!r} in {self.name}: part_bytes must be positive")
        self._segments(spec.key)
        token = uuid.uuid4().hex
        with _translated(f"beginning {spec.key!r} in {self.name}"), self._uploads() as uploads:
            os.mkdir(token, dir_fd=uploads)
            try:
                with open_folder(token, uploads) as folder:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    with _opened("parts", flags, folder), _opened("data", flags, folder) as data:
                        if spec.size_bytes:
                            os.posix_fallocate(data, 0, spec.size_bytes)  # a full disk shows before the work
                    os.fsync(folder)
                os.fsync(uploads)
            except OSError:
                _remove_upload(token, uploads)
                raise
        return FilesystemUpload(self, spec, token)

    def resume(self, spec: ObjectSpec, token: str) -> FilesystemUpload:
        upload = FilesystemUpload(self, spec, token)
        upload.parts()
        return upload

    def stat(self, key: ObjectKey) -> ObjectInfo | None:
        try:
            with _translated(f"looking at {key!r} in {self.name}"), self._file(key) as file:
                return _info(key, os.fstat(file))
        except ObjectMissing:
            return None

    def read(self, key: ObjectKey, start: int = 0, length_bytes: int | None = None) -> bytes:
        with _translated(f"reading {key!r} in {self.name}"), self._file(key) as file:
            size = os.fstat(file).st_size
            left = max(0, size - start) if length_bytes is None else max(0, min(length_bytes, size - start))
            pieces = []
            while left:
                piece = os.pread(file, left, start)
                if not piece:
                    break  # made shorter meanwhile by someone else
                pieces.append(piece)
                start += len(piece)
                left -= len(piece)
            return b"".join(pieces)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        start = prefix.rpartition("/")[0]
        try:
            waiting = ["/".join(self._segments(start))] if start else [""]
        except InvalidKey:
            return  # no object can have such a key
        while waiting:  # memory is bounded by one directory's files and the tree's directories
            folder = waiting.pop()
            with _translated(f"listing {prefix!r} in {self.name}"), self._root_folder() as root:
                files, folders = _entries(folder, root)
            waiting += [path for path in folders if path.startswith(prefix)]
            yield from (info for info in files if info.key.startswith(prefix))

    def delete(self, key: ObjectKey) -> None:
        *folders, last = self._segments(key)
        with _translated(f"deleting {key!r} in {self.name}"), self._root_folder() as root:
            try:
                with walk(folders, root) as folder:
                    if self._named_otherwise(key, root) is not None:
                        return  # what stands there is another key's
                    os.unlink(last, dir_fd=folder)
                    os.fsync(folder)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return

    def abort_stale_uploads(self, older_than: timedelta) -> int:
        limit = time.time() - older_than.total_seconds()
        stale = 0
        doing = f"looking for stale uploads in {self.name}"
        with _translated(doing), self._uploads() as uploads, os.scandir(uploads) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # completed meanwhile
                    if entry.stat(follow_symlinks=False).st_ctime > limit:
                        continue
                    if _TOKEN.fullmatch(entry.name):
                        _remove_upload(entry.name, uploads)
                    elif entry.name.endswith(".put"):
                        os.unlink(entry.name, dir_fd=uploads)
                    else:
                        continue
                    stale += 1
        return stale

    def removes_stale_uploads(self) -> bool | None:
        return False

    def close(self) -> None:
        """Nothing is held open between calls."""

    # -- inside

    def _segments(self, key: str) -> Sequence[str]:
        segments = object_key(key).split("/")
        if segments[0] == UPLOADS:
            raise InvalidKey(f"key {key!r} in {self.name}: '{UPLOADS}/' holds unfinished uploads")
        return segments

    @contextlib.contextmanager
    def _root_folder(self) -> Iterator[int]:
        flags = (
            os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )  # the root itself may be a link: a person chose it
        with self._lock:
            if not self._made:
                try:
                    self._root.mkdir(exist_ok=True)
                except (FileNotFoundError, NotADirectoryError):
                    raise BucketMissing(
                        f"{self.name}: its parent directory {self._root.parent} does not exist; create it, or is "
                        "a disk not mounted?"
                    ) from None
                except FileExistsError:
                    raise BucketMissing(f"{self.name} is not a directory") from None
                self._made = True  # only once: a root that vanishes later is an unmounted disk, not a new one
        try:
            root = os.open(self._root, flags)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BucketMissing(
                f"{self.name} was there and is gone; is the disk not mounted any more?"
            ) from error
        try:
            yield root
        finally:
            os.close(root)

    @contextlib.contextmanager
    def _uploads(self) -> Iterator[int]:
        with self._root_folder() as root, walk([UPLOADS], root, make=True) as folder:
            yield folder

    @contextlib.contextmanager
    def _file(self, key: ObjectKey) -> Iterator[int]:
        *folders, last = self._segments(key)
        missing = f"{key!r} is not in {self.name}"
        with self._root_folder() as root, contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(walk(folders, root))
                file = os.open(
                    last, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder
                )
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # a link is not an object
                    raise ObjectMissing(missing) from None
                raise
            stack.callback(os.close, file)
            if not stat_bits.S_ISREG(os.fstat(file).st_mode) or self._named_otherwise(key, root) is not None:
                raise ObjectMissing(missing)
            yield file

    def _publish(
        self, spec: ObjectSpec, source_folder: int, source: str, file: int, crc32c: int
    ) -> ObjectInfo:
        """Make the checked and flushed file `source` the object. Repeatable: a link that is already there is
        recognised by its inode."""
        *folders, last = self._segments(spec.key)
        with self._root_folder() as root, walk(folders, root, make=True) as folder:
            self._refuse_collision(spec.key, root)
            if spec.if_absent:
                self._create(spec.key, source_folder, source, folder, last, file)
            elif spec.if_match is not None:
                with self._expected(spec.key, spec.if_match, folder, last):
                    os.rename(source, last, src_dir_fd=source_folder, dst_dir_fd=folder)
            else:
                os.rename(source, last, src_dir_fd=source_folder, dst_dir_fd=folder)
            try:
                flush(folder)
            except NotFlushed:
                if spec.if_absent:  # or the next attempt would find it, and take it for kept
                    with contextlib.suppress(OSError):
                        os.unlink(last, dir_fd=folder)
                raise
        info = _info(spec.key, os.fstat(file))
        return ObjectInfo(
            info.key,
            info.size_bytes,
            crc32c,
            info.etag,
            spec.content_type or info.content_type,
            info.updated_at,
        )

    def _create(
        self, key: ObjectKey, source_folder: int, source: str, folder: int, last: str, file: int
    ) -> None:
        taken = ObjectExists(f"storing {key!r} in {self.name}: the key is taken")
        if self._links:
            try:
                os.link(source, last, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                if os.path.samestat(os.stat(last, dir_fd=folder, follow_symlinks=False), os.fstat(file)):
                    return
                raise taken from None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            else:
                return
        with contextlib.suppress(FileNotFoundError):  # no links here: look first, then write
            os.stat(last, dir_fd=folder, follow_symlinks=False)
            raise taken
        os.rename(source, last, src_dir_fd=source_folder, dst_dir_fd=folder)
        self._links = False  # learned: without one, it is taken

    @contextlib.contextmanager
    def _expected(self, key: ObjectKey, etag: str, folder: int, last: str) -> Iterator[None]:
        """Hold the object with this etag, so that nobody else who asks for it replaces it meanwhile. Two who expect
        the same object lock the same file; the one who comes later finds that the name is another file's."""
        doing = f"replacing {key!r} in {self.name}"
        changed = ObjectChanged(f"{doing}: it is another one by now")
        try:
            held = _opened_for_locking(last, folder)
        except (FileNotFoundError, IsADirectoryError):
            raise changed from None
        try:
            self._lock_file(held, doing)
            try:
                there = os.stat(last, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                raise changed from None
            if not os.path.samestat(there, os.fstat(held)) or _info(key, there).etag != etag:
                raise changed
            yield
        finally:
            os.close(held)

    def _lock_file(self, file: int, doing: str) -> None:
        if not self._locks:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientStorageError(f"{doing}: another process is replacing it now") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._locks = False  # learned: compare, then write

    def _refuse_collision(self, key: ObjectKey, root: int) -> None:
        """Raise InvalidKey when `key` would fall on the file, or in the directory, of another key."""
        other = self._named_otherwise(key, root)
        if other is not None:
            raise InvalidKey(
                f"storing {key!r} in {self.name}: this file system takes it for {other!r}, which is there already and "
                "is another key; use a file system that tells upper from lower case"
            )

    def _named_otherwise(self, key: ObjectKey, root: int) -> str | None:
        """The path of another key that this file system takes `key` for; None nearly always."""
        if self._folds is None:
            self._folds = folds_case(UPLOADS, root)
        return named_otherwise(key, root) if self._folds else None


class _Anew(UploadGone):
    """An upload that was discarded because a flush failed."""


class FilesystemUpload:
    """See `storage_backends.base.Upload`."""

    def __init__(self, backend: FilesystemBackend, spec: ObjectSpec, token: str) -> None:
        self._backend = backend
        self._spec = spec
        self._token = token

    @property
    def spec(self) -> ObjectSpec:
        return self._spec

    @property
    def token(self) -> str:
        return self._token

    def parts(self) -> Mapping[int, Part] | None:
        try:
            with (
                self.opened("asking for the parts of") as folder,
                _opened("parts", os.O_RDONLY, folder) as journal,
            ):
                return _parse_journal(os.pread(journal, os.fstat(journal).st_size, 0))
        except UploadGone:
            stored = self._backend.stat(self._spec.key) if _TOKEN.fullmatch(self._token) else None
            if stored is None or stored.size_bytes != self._spec.size_bytes:
                raise
            return None  # perhaps completed, and the answer was lost: `complete` compares the content

    def put_part(self, number: int, data: Buffer, crc32c: int) -> Part:
        doing = f"part {number} of"
        if number < 1 or len(data) > self._spec.part_bytes:
            raise StorageError(
                f"{doing} {self._described}: it does not fit its slot of {self._spec.part_bytes} bytes"
            )
        actual = crc.crc32c_of(data)
        if actual != crc32c:
            raise ChecksumRejected(
                f"{doing} {self._described}: CRC32C is {actual:08x}, {crc32c:08x} was announced"
            )
        with (
            self.opened(doing) as folder,
            self._anew_when_not_flushed(doing),
            _opened("parts", os.O_WRONLY | os.O_APPEND, folder) as journal,
        ):
            # a part that is sent again is not held while its bytes are being replaced
            os.write(journal, b"\n%d -\n" % number)
            with _opened("data", os.O_WRONLY, folder) as file:
                _write_all(file, data, (number - 1) * self._spec.part_bytes)
                flush(file, data_only=True)
            os.write(journal, b"%d %d %08x\n" % (number, len(data), crc32c))
            flush(journal, data_only=True)
        return Part(number, len(data), crc32c, f"{crc32c:08x}")

    def complete(self, parts: Sequence[Part], crc32c: int) -> ObjectInfo:
        size = sum(part.size_bytes for part in parts)
        doing = f"completing {self._described}"
        try:
            with (
                self.opened("completing") as folder,
                self._anew_when_not_flushed("completing"),
                _opened("data", os.O_RDWR, folder) as file,
            ):
                self._check_parts(parts, folder)
                os.ftruncate(file, size)
                _check(file, size, crc32c, doing)
                flush(file)
                info = self._backend._publish(self._spec, folder, "data", file, crc32c)  # noqa: SLF001 # one thing in two classes
        except _Anew:
            raise
        except (UploadGone, FileNotFoundError) as gone:
            done = self._already_completed(size, crc32c, doing)
            if done is None:
                raise UploadGone(f"{doing}: no such upload") from gone
            info = done
        except AccessDenied as refusal:
            return equal_or_raise(refusal, self._backend, self._spec.key, size, crc32c)
        with contextlib.suppress(AccessDenied):  # where nothing may be deleted
            self.abort()  # what is left of the upload; the object has its own name now
        return info

    def abort(self) -> None:
        with _translated(f"aborting the upload of {self._described}"), self._backend._uploads() as uploads:  # noqa: SLF001
            _remove_upload(self._token, uploads)

    @contextlib.contextmanager
    def opened(self, doing: str) -> Iterator[int]:
        """The upload's own directory. Raises UploadGone."""
        with _translated(f"{doing} {self._described}"), self._backend._uploads() as uploads:  # noqa: SLF001
            gone = UploadGone(f"{doing} {self._described}: no such upload")
            if not _TOKEN.fullmatch(self._token):
                raise gone
            with contextlib.ExitStack() as stack:
                try:
                    folder = stack.enter_context(open_folder(self._token, uploads))
                except (FileNotFoundError, NotADirectoryError):
                    raise gone from None
                try:
                    yield folder
                except FileNotFoundError:  # aborted under our hands
                    raise gone from None

    @contextlib.contextmanager
    def _anew_when_not_flushed(self, doing: str) -> Iterator[None]:
        """What a flush failed for may be nowhere, the parts before it included: discard them all."""
        try:
            yield
        except NotFlushed as error:
            with contextlib.suppress(StorageError):
                self.abort()
            if error.errno in _FULL:
                raise
            what = translate(error, f"{doing} {self._described}")
            raise _Anew(f"{what}; what was kept of it may not be on the disk: begin again") from error

    @property
    def _described(self) -> str:
        return f"{self._spec.key!r} in {self._backend.name}"

    def _check_parts(self, parts: Sequence[Part], folder: int) -> None:
        with _opened("parts", os.O_RDONLY, folder) as journal:
            held = _parse_journal(os.pread(journal, os.fstat(journal).st_size, 0))
        for place, part in enumerate(parts, start=1):
            full = part.size_bytes == self._spec.part_bytes or place == len(parts)
            if part.number != place or not full:
                raise StorageError(f"completing {self._described}: part {part.number} is not in its place")
            if held.get(part.number) != part:
                raise UploadGone(f"completing {self._described}: part {part.number} is not held any more")

    def _already_completed(self, size_bytes: int, crc32c: int, doing: str) -> ObjectInfo | None:
        """The object that an earlier `complete` made, recognised by its content. It may have ended before the flush."""
        folders = self._spec.key.split("/")[:-1]
        try:
            with (
                _translated(doing),
                self._backend._file(self._spec.key) as file,  # noqa: SLF001
                self._backend._root_folder() as root,  # noqa: SLF001
                walk(folders, root) as folder,
            ):
                _check(file, size_bytes, crc32c, doing)
                try:
                    flush(file)
                    flush(folder)
                except NotFlushed:
                    return None  # to be written anew
                info = _info(self._spec.key, os.fstat(file))
        except (ObjectMissing, ChecksumRejected):
            return None
        return ObjectInfo(info.key, size_bytes, crc32c, info.etag, self._spec.content_type, info.updated_at)


def _opened_for_locking(name: str, folder: int) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(name, os.O_RDWR | flags, dir_fd=folder)  # NFS locks only what may be written
    except PermissionError:
        return os.open(name, os.O_RDONLY | flags, dir_fd=folder)


@contextlib.contextmanager
def _opened(name: str, flags: int, folder: int) -> Iterator[int]:
    file = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        yield file
    finally:
        os.close(file)


def _entries(folder: str, root: int) -> tuple[list[ObjectInfo], list[str]]:
    """The files of one directory, and the paths of the directories in it."""
    files: list[ObjectInfo] = []
    folders: list[str] = []
    try:
        with walk(folder.split("/") if folder else [], root) as opened, os.scandir(opened) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if path == UPLOADS:
                    continue
                try:
                    key = key_of(path, entry.name, opened)
                except InvalidKey:
                    continue  # not ours: no key can name it
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # deleted while we list
                        files.append(_info(key, entry.stat(follow_symlinks=False)))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    return files, folders


def _write_all(file: int, data: Buffer, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view = view[written:]
        offset += written


def _check(file: int, size_bytes: int, crc32c: int, doing: str) -> None:
    """Read the file back: what it holds is the proof, not what we meant to write."""
    actual, offset = 0, 0
    while piece := os.pread(file, _READ_BACK_BYTES, offset):
        actual = crc.crc32c_of(piece, actual)
        offset += len(piece)
    if (offset, actual) != (size_bytes, crc32c):
        raise ChecksumRejected(
            f"{doing}: the file holds {offset} bytes with CRC32C {actual:08x}, not {size_bytes} with {crc32c:08x}"
        )


def _parse_journal(text: bytes) -> dict[int, Part]:
    """The parts held. The last line about a part counts; a line without its end was cut by a crash."""
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


def _remove_upload(token: str, uploads: int) -> None:
    if not _TOKEN.fullmatch(token):
        return
    try:
        with open_folder(token, uploads) as folder, os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=folder)
        os.rmdir(token, dir_fd=uploads)
    except FileNotFoundError:
        return


def _info(key: ObjectKey, status: os.stat_result) -> ObjectInfo:
    suffix = Path(key).suffix.lower()
    return ObjectInfo(
        key,
        status.st_size,
        None,
        f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}",
        _CONTENT_TYPES.get(suffix),
        datetime.fromtimestamp(status.st_mtime, UTC),
    )
