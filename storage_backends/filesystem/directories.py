"""Open directories from their parent, never through a symbolic link, so that neither a key nor a link inside the
destination leads out of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotFlushed(OSError):
    """What was written may not be on the disk. Another flush proves nothing: the kernel reports the error once."""


def flush(file: int, *, data_only: bool = False) -> None:
    """Flush to the disk. Raises NotFlushed."""
    try:
        os.fdatasync(file) if data_only else os.fsync(file)
    except OSError as error:
        raise NotFlushed(error.errno, error.strerror) from error


class Opened:
    """A file handle, closed at the end of a `with` block. A generator would cost five times as much, and each small
    object takes a dozen."""

    __slots__ = ("_file",)

    def __init__(self, file: int) -> None:
        self._file = file

    def __enter__(self) -> int:
        return self._file

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def open_folder(name: str, above: int) -> Opened:
    return Opened(os.open(name, _FOLDER, dir_fd=above))


def walk(segments: Sequence[str], root: int, *, make: bool = False) -> Opened:
    """Open the directory `segments` below `root`. A symbolic link on the way raises ENOTDIR or ELOOP."""
    return Opened(descend(segments, root, make=make))


def descend(segments: Sequence[str], root: int, *, make: bool = False) -> int:
    """As `walk`; the caller closes it."""
    folder = root
    try:
        for segment in segments:
            try:
                below = os.open(segment, _FOLDER, dir_fd=folder)
            except FileNotFoundError:
                if not make:
                    raise
                _make(segment, folder)
                below = os.open(segment, _FOLDER, dir_fd=folder)
            above, folder = folder, below
            if above != root:
                os.close(above)
    except BaseException:
        if folder != root:
            os.close(folder)
        raise
    return folder if folder != root else os.dup(root)


def _make(name: str, above: int) -> None:
    with contextlib.suppress(FileExistsError):  # created by another thread
        os.mkdir(name, dir_fd=above)
    try:
        flush(above)
    except NotFlushed:
        with contextlib.suppress(OSError):  # or the next attempt would find it and not flush it
            os.rmdir(name, dir_fd=above)
        raise
