"""The operating system's errors → ours."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

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
    """`error` as one of ours. Whatever is not the disk's fullness, a permission, the key or the object's size is taken
    for passing (EIO, ESTALE on NFS, EMFILE): tried again, and seen by a person if it persists."""
    said = (
        f"{doing}: {os.strerror(error.errno)} ({errno.errorcode.get(error.errno, error.errno)})"
        if error.errno
        else doing
    )
    if error.errno in FULL:
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
def translated(doing: Operation) -> Iterator[None]:
    """Raise the operating system's errors as ours, with the fields of `doing`."""
    with doing:
        try:
            yield
        except OSError as error:
            raise translate(error, doing) from error
