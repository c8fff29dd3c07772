"""File systems that ignore case (macOS by default, Windows, some network shares, ext4 per directory) or normal forms of
Unicode.

Keys are in normal form C, so no two differ in normal form alone. Two may differ in case alone, and one must never
replace the other.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata

from storage_backends.base import ObjectKey, object_key
from storage_backends.filesystem.directories import walk


def folds_case(name: str, folder: int) -> bool | None:
    """Return whether the file `name` is also found in another case; None when there is no such file."""
    try:
        ours = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    try:
        return os.path.samestat(ours, os.stat(name.swapcase(), dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def named_otherwise(key: ObjectKey, root: int) -> str | None:
    """Return the existing path that the file system takes `key` for, or one of its directories for; None when there is
    none. Lists each of these directories."""
    segments = key.split("/")
    for depth, segment in enumerate(segments):
        try:
            with walk(segments[:depth], root) as folder:
                there = os.stat(segment, dir_fd=folder, follow_symlinks=False)
                with os.scandir(folder) as entries:
                    names = {entry.name: entry.inode() for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            return None
        if segment in {unicodedata.normalize("NFC", name) for name in names}:
            continue
        other = next((name for name, inode in names.items() if inode == there.st_ino), segment)
        return "/".join([*segments[:depth], other])
    return None


def key_of(path: str, name: str, folder: int) -> ObjectKey:
    """Return the key of the file `path`, whose last segment is `name` in `folder`: in normal form C also where the file
    system keeps names in form D. Raises InvalidKey."""
    composed = unicodedata.normalize("NFC", name)
    if composed != name:
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(composed, dir_fd=folder, follow_symlinks=False)
            if os.path.samestat(there, os.stat(name, dir_fd=folder, follow_symlinks=False)):
                return object_key(unicodedata.normalize("NFC", path))
    return object_key(path)
