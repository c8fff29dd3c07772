"""The folder that assets are restored to.

    <root>/<room>/<session>/<type>/<asset>/<path>   a file, always whole; manifest.json is the last
    <root>/.archiver-restore/lock                   locked while a restore writes here
    <root>/.archiver-restore/<hash>.partial         the beginning of a file, where the next run resumes

A file appears by `rename`, after its size and CRC32C were compared and its bytes flushed. No symbolic link below the
root is followed, so that neither a path nor a link inside leads out of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from archiver.core.errors import FileRefused, FolderBusy, FolderFull, FolderUnusable, RestoreError
from storage_backends.base import Buffer, object_key
from storage_backends.errors import InvalidKey

WORK = ".archiver-restore"
_LOCK = "lock"
_READ_BYTES = 4 * 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT}
_THIS_FILE = {
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EILSEQ, errno.EFBIG),
    *(errno.EEXIST, errno.ENOTEMPTY),
}
_FOLDED = (
    "{}: this file system ignores case, and something is there whose name differs in case alone; restore to another "
    "file system"
)


class RestoreFolder:
    """Use as a context manager; threads may share it. Every method raises RestoreError. `private`: what is written is
    for this user alone."""

    def __init__(self, root: Path, *, private: bool = False) -> None:
        self.root = root
        self._modes = (0o700, 0o600) if private else (0o777, 0o666)
        self._fd = self._work = self._lock = -1
        self._naming = threading.Lock()
        self._names: dict[str, set[str]] = {}  # of each folder written to, in normal form C

    def __enter__(self) -> Self:
        with self._translated(str(self.root)):
            try:
                self.root.mkdir(self._modes[0], parents=True, exist_ok=True)
                self._fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._acquire()
            except RestoreError:
                self._close()
                raise
            except OSError as error:
                self._close()
                if error.errno in _FULL:
                    raise
                raise FolderUnusable(
                    f"{self.root} cannot be written: {os.strerror(error.errno or 0)}"
                ) from error
        return self

    def __exit__(self, *_error: object) -> None:
        if self._work >= 0:
            with contextlib.suppress(OSError):  # a partial file may be there: the next run resumes it
                if set(os.listdir(self._work)) <= {_LOCK}:  # noqa: PTH208 # a descriptor
                    os.unlink(_LOCK, dir_fd=self._work)
                    os.rmdir(WORK, dir_fd=self._fd)
        self._close()

    def _acquire(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(WORK, 0o700, dir_fd=self._fd)
        self._work = os.open(WORK, _FOLDER, dir_fd=self._fd)
        self._lock = os.open(
            _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._work
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(
                os.fstat(self._lock), os.stat(_LOCK, dir_fd=self._work, follow_symlinks=False)
            )
        except (BlockingIOError, FileNotFoundError):
            same = False
        if not same:  # held by another restore, or one that just ended removed it
            raise FolderBusy(
                f"another restore is writing to {self.root}: wait for it, or choose another folder"
            )

    def _close(self) -> None:
        for file in (self._lock, self._work, self._fd):
            if file >= 0:
                os.close(file)
        self._fd = self._work = self._lock = -1

    # -- what is there ---------------------------------------------------------------------------------------
    def free_bytes(self) -> int:
        """Return how many bytes this user may still write, as far as the file system tells."""
        with self._translated(str(self.root)):
            found = os.statvfs(self._fd)
            return found.f_bavail * found.f_frsize

    def read(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a file; nothing when no regular file is there."""
        *folders, name = _segments(path)
        with self._translated(path):
            try:
                with self._opened(folders) as folder:
                    file = os.open(
                        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
                    )
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                    return
                raise
            with os.fdopen(file, "rb", buffering=0) as opened:
                if stat.S_ISREG(os.fstat(file).st_mode):
                    while block := opened.read(_READ_BYTES):
                        yield block

    def size_of(self, path: str) -> int | None:
        """Return the size of the regular file at `path` in bytes; None when there is none."""
        *folders, name = _segments(path)
        with self._translated(path):
            try:
                with self._opened(folders) as folder:
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    return None
                raise
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def files(self) -> Iterator[str]:
        """Yield the path of everything that is no folder, in no order."""
        waiting: list[list[str]] = [[]]
        while waiting:
            above = waiting.pop()
            with (
                self._translated("/".join(above)),
                self._opened(above) as folder,
                os.scandir(folder) as entries,
            ):
                for entry in entries:
                    if not above and entry.name == WORK:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append([*above, entry.name])
                    else:
                        yield "/".join([*above, entry.name])

    # -- writing ---------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def partial(self, path: str) -> Iterator[Partial]:
        """Yield the unfinished file of `path`, with what an earlier run wrote. It stays unless it is published."""
        _segments(path)
        name = f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.partial"
        with self._translated(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, self._modes[1], dir_fd=self._work)
            resumes = True
            try:
                yield Partial(self, path, name, file)
            except (FileRefused, OSError) as error:
                resumes = not isinstance(error, FileRefused) and error.errno not in _THIS_FILE
                raise
            finally:
                if not resumes or os.fstat(file).st_size == 0:
                    with contextlib.suppress(FileNotFoundError):  # published
                        os.unlink(name, dir_fd=self._work)
                os.close(file)

    def write(self, path: str, data: bytes) -> None:
        """Write a small file, replacing another."""
        with self.partial(path) as partial:
            partial.discard()
            partial.write(data)
            partial.publish()

    def remove(self, path: str) -> None:
        """Remove a file. Idempotent."""
        *folders, name = _segments(path)
        with (
            self._translated(path),
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            self._opened(folders) as folder,
        ):
            os.unlink(name, dir_fd=folder)

    def publish(self, partial: str, path: str) -> None:
        """Move a partial file to its path; called by `Partial`."""
        *folders, name = _segments(path)
        with self._naming, self._opened(folders, make=True) as folder:
            names = self._names_in(folders, folder)
            if name not in names and _is_there(name, folder):
                raise FileRefused(_FOLDED.format(path))
            os.replace(partial, name, src_dir_fd=self._work, dst_dir_fd=folder)
            names.add(name)

    def clear(self) -> None:
        """Remove everything in the folder. For a folder of our own alone."""
        self.discard_partials()
        with self._translated(str(self.root)):
            for name in os.listdir(self._fd):  # noqa: PTH208 # a descriptor
                if name == WORK:
                    continue
                if stat.S_ISDIR(os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode):
                    shutil.rmtree(name, dir_fd=self._fd)
                else:
                    os.unlink(name, dir_fd=self._fd)
        self.forget()

    def discard_partials(self) -> None:
        """Remove every unfinished file."""
        with self._translated(WORK):
            for name in os.listdir(self._work):  # noqa: PTH208 # a descriptor
                if name != _LOCK:
                    os.unlink(name, dir_fd=self._work)

    def forget(self) -> None:
        """Forget the names of the folders written to: call after each asset, to bound the memory."""
        with self._naming:
            self._names.clear()

    def _names_in(self, folders: Sequence[str], folder: int) -> set[str]:
        path = "/".join(folders)
        if path not in self._names:
            self._names[path] = {unicodedata.normalize("NFC", name) for name in os.listdir(folder)}
        return self._names[path]

    @contextlib.contextmanager
    def _opened(self, folders: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Open a folder below the root. A symbolic link on the way raises ENOTDIR or ELOOP."""
        folder = os.dup(self._fd)
        try:
            for depth, name in enumerate(folders):
                if make:
                    self._make(folders[:depth], folder, name)
                below = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def _make(self, above: Sequence[str], folder: int, name: str) -> None:
        names = self._names_in(above, folder)
        if name in names:
            return
        try:
            os.mkdir(name, self._modes[0], dir_fd=folder)
        except FileExistsError:
            raise FileRefused(_FOLDED.format("/".join([*above, name]))) from None
        names.add(name)

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refusal(error, path) from error

    def _refusal(self, error: OSError, path: str) -> RestoreError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _FULL:
            return FolderFull(
                f"{self.root} is full ({reason}, while writing {path}). What is there stays: make room, then run the "
                "same command again, and it resumes"
            )
        if error.errno in _THIS_FILE:
            return FileRefused(f"{path}: {self.root} cannot hold it: {reason}")
        return FolderUnusable(f"{self.root} cannot be used for {path}: {reason}")


class Partial:
    """An unfinished file. Its methods raise OSError, which `RestoreFolder.partial` translates."""

    def __init__(self, folder: RestoreFolder, path: str, name: str, file: int) -> None:
        self._folder = folder
        self._path = path
        self._name = name
        self._file = file

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._file).st_size

    def read(self) -> Iterator[bytes]:
        """Yield what is there, from the start."""
        at = 0
        while block := os.pread(self._file, _READ_BYTES, at):
            at += len(block)
            yield block

    def discard(self) -> None:
        os.ftruncate(self._file, 0)

    def write(self, data: Buffer) -> None:
        """Append `data`."""
        at, view = self.size_bytes, memoryview(data)
        while view:
            written = os.pwrite(self._file, view, at)
            at += written
            view = view[written:]

    def publish(self) -> None:
        """Flush it and move it to its path. A failed flush is not retried (fsync(2)): the file starts again."""
        try:
            os.fdatasync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                self.discard()
            raise
        self._folder.publish(self._name, self._path)


def _segments(path: str) -> list[str]:
    """Raises FileRefused for a path that is no plain path below a folder."""
    try:
        return object_key(path).split("/")
    except InvalidKey as error:
        raise FileRefused(str(error)) from None


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
