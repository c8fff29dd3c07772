"""Translate the operating system's errors to ours."""

from __future__ import annotations

import errno
import os
import resource
from types import TracebackType

from storage_backends.errors import (
    AccessDenied,
    DestinationFull,
    InvalidKey,
    StorageError,
    TransientStorageError,
)
from storage_backends.operation import Operation

FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_OUR_KEY = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EILSEQ}


def translate(error: OSError, doing: object) -> StorageError:
    """Return `error` as one of ours. Whatever is not a full disk, a permission, the key or the object's size counts as
    transient (EIO, ESTALE on NFS, EMFILE)."""
    message = (
        f"{doing}: {os.strerror(error.errno)} ({errno.errorcode.get(error.errno, error.errno)})"
        if error.errno
        else doing
    )
    if error.errno in FULL:
        return DestinationFull(f"{message}; free space or raise the quota")
    if error.errno == errno.EFBIG:  # of this object alone: smaller ones still fit
        return StorageError(f"{message}; it is larger than {_largest_file()}")
    if error.errno in _DENIED:
        return AccessDenied(f"{message}; let this user write there, or remount it for writing")
    if error.errno in _OUR_KEY:
        return InvalidKey(
            f"{message}; a file or a symbolic link is where the key needs a directory, or the reverse"
        )
    return TransientStorageError(message)


def _largest_file() -> str:
    """Describe the largest file possible; a file system does not report its own limit."""
    ours, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if ours != resource.RLIM_INFINITY:
        return f"the {ours} bytes that this process may write to one file (ulimit -f), or than its file system takes"
    return "one file may be on its file system (4 GiB on FAT): use another kind, such as ext4 or XFS"


class translated:  # noqa: N801 - a context manager; a generator would cost five times as much
    """Raise the operating system's errors as ours, with the fields of `doing`."""

    __slots__ = ("_doing",)

    def __init__(self, doing: Operation) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            with self._doing:
                raise translate(error, self._doing) from error
        self._doing.__exit__(kind, error, traceback)
