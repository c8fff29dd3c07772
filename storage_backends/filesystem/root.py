"""The root directory of a destination: opens files without following symbolic links, publishes objects atomically."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat as stat_bits
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage_backends.base import (
    ObjectInfo,
    ObjectKey,
    ObjectSpec,
    object_key,
)
from storage_backends.errors import (
    BucketMissing,
    InvalidKey,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    TransientStorageError,
)
from storage_backends.filesystem.directories import NotFlushed, Opened, descend, flush, walk
from storage_backends.filesystem.files import described
from storage_backends.filesystem.folded_names import folds_case, key_of
from storage_backends.filesystem.folded_names import named_otherwise as other_name_of

UPLOADS = ".uploads"

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # it may be a link itself: that is the user's choice
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# errors of a file system without hard links (FUSE, SMB, FAT) or without locks (some NFS)
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


class Root:
    """Shared by the backend and its uploads. `links`, `locks`: whether the file system supports them, as far as
    known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"file://{path}"
        self.links = True
        self.locks = True
        self._made = False
        self._lock = threading.Lock()
        self._folds: bool | None = None  # None: not known yet

    def segments(self, key: str) -> Sequence[str]:
        segments = object_key(key).split("/")
        if segments[0] == UPLOADS:
            raise InvalidKey(f"key {key!r} in {self.name}: '{UPLOADS}/' holds unfinished uploads")
        return segments

    def opened(self) -> Opened:
        return Opened(self._open())

    def _open(self) -> int:
        """The root, each time anew: its disk may be unmounted in between."""
        if not self._made:
            self._make()
        try:
            return os.open(self.path, _ROOT)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BucketMissing(f"{self.name} existed and is gone; check that its disk is mounted") from error

    def _make(self) -> None:
        """Once: a root that vanishes later is an unmounted disk."""
        with self._lock:
            if self._made:
                return
            try:
                self.path.mkdir(exist_ok=True)
            except (FileNotFoundError, NotADirectoryError):
                raise BucketMissing(
                    f"{self.name}: its parent directory {self.path.parent} does not exist; create it, or "
                    "mount the disk"
                ) from None
            except FileExistsError:
                raise BucketMissing(f"{self.name} is not a directory") from None
            self._made = True

    def uploads(self) -> Opened:
        with self.opened() as root:
            return walk([UPLOADS], root, make=True)

    def file(self, key: ObjectKey) -> Opened:
        """Raises ObjectMissing; OSError."""
        return Opened(self._open_file(key))

    def _open_file(self, key: ObjectKey) -> int:
        *folders, last = self.segments(key)
        root = folder = self._open()
        try:
            try:
                folder = descend(folders, root)
                file = os.open(last, _FILE, dir_fd=folder)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # a link is not an object
                    raise self._missing(key) from None
                raise
            try:
                if (
                    not stat_bits.S_ISREG(os.fstat(file).st_mode)
                    or self.named_otherwise(key, root) is not None
                ):
                    raise self._missing(key)
            except BaseException:
                os.close(file)
                raise
            return file
        finally:
            if folder != root:
                os.close(folder)
            os.close(root)

    def _missing(self, key: ObjectKey) -> ObjectMissing:
        return ObjectMissing(f"{key!r} is not in {self.name}")

    def publish(
        self, spec: ObjectSpec, source_folder: int, source: str, file: int, crc32c: int
    ) -> ObjectInfo:
        """Make the checked and flushed file `source` the object. Idempotent: an existing link is recognised by its
        inode."""
        *folders, last = self.segments(spec.key)
        with self.opened() as root, walk(folders, root, make=True) as folder:
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
                if spec.if_absent:  # or the next attempt would find it and take it for durable
                    with contextlib.suppress(OSError):
                        os.unlink(last, dir_fd=folder)
                raise
        info = described(spec.key, os.fstat(file))
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
        taken = ObjectExists(f"creating {key!r} in {self.name}: the key is taken")
        if self.links:
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
        with contextlib.suppress(FileNotFoundError):  # no hard links here: check, then write
            os.stat(last, dir_fd=folder, follow_symlinks=False)
            raise taken
        os.rename(source, last, src_dir_fd=source_folder, dst_dir_fd=folder)
        self.links = False  # learned: without a link, it is accepted

    @contextlib.contextmanager
    def _expected(self, key: ObjectKey, etag: str, folder: int, last: str) -> Iterator[None]:
        """Lock the object with this etag while it is replaced. Two writers who expect the same object lock the same
        file; the later one finds that the name is another file's."""
        doing = f"replacing {key!r} in {self.name}"
        changed = ObjectChanged(f"{doing}: the key holds another object")
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
            if not os.path.samestat(there, os.fstat(held)) or described(key, there).etag != etag:
                raise changed
            yield
        finally:
            os.close(held)

    def _lock_file(self, file: int, doing: str) -> None:
        if not self.locks:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientStorageError(f"{doing}: another process is replacing it now") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self.locks = False  # learned: compare without a lock, then write

    def _refuse_collision(self, key: ObjectKey, root: int) -> None:
        """Raise InvalidKey when the file system takes `key`, or one of its directories, for another name."""
        other = self.named_otherwise(key, root)
        if other is not None:
            raise InvalidKey(
                f"storing {key!r} in {self.name}: this file system ignores case, and {other!r} exists already; "
                "use a case-sensitive file system"
            )

    def named_otherwise(self, key: ObjectKey, root: int) -> str | None:
        """Return the existing path that this file system takes `key` for; None nearly always."""
        if self._folds is None:
            self._folds = folds_case(UPLOADS, root)
        return other_name_of(key, root) if self._folds else None


def _opened_for_locking(name: str, folder: int) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        # NFS locks only files that are open for writing
        return os.open(name, os.O_RDWR | flags, dir_fd=folder)
    except PermissionError:
        return os.open(name, os.O_RDONLY | flags, dir_fd=folder)


def entries_of(folder: str, root: int) -> tuple[list[ObjectInfo], list[str]]:
    """Return the files of one directory, and the paths of its directories."""
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
                    continue  # not ours: not a valid key
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        files.append(described(key, entry.stat(follow_symlinks=False)))
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    return files, folders
