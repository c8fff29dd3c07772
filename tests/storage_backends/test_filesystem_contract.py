from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage_backends.base import StorageBackend
from storage_backends.filesystem import FilesystemBackend
from tests.contracts.storage_contract import Destination, StorageContract
from tests.storage_backends.side_doors import FileSideDoor


class TestFilesystem(StorageContract):
    @pytest.fixture(scope="class")
    @classmethod
    def destination(cls, tmp_path_factory: pytest.TempPathFactory) -> Destination:
        folder = tmp_path_factory.mktemp("filesystem")
        return Destination(
            f"file://{folder}/archive",
            FileSideDoor(folder / "archive"),
            missing_url=f"file://{folder}/not/there",
            refused=lambda: refusing(folder / "refusing"),
            sibling_url=f"file://{folder}/archived",
        )


@contextlib.contextmanager
def refusing(root: Path) -> Iterator[StorageBackend]:
    """A directory that may not be written to. The tests may run as root, who may write anywhere: so the system calls
    answer what they would answer someone else."""
    root.mkdir(exist_ok=True)
    real_open, real_mkdir = os.open, os.mkdir

    def refuse_writing(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real_open(path, flags, *arguments, **named)

    def refuse_making(path: Any, *arguments: Any, **named: Any) -> None:
        if named.get("dir_fd") is None:
            return real_mkdir(path, *arguments, **named)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse_writing)
        patch.setattr(os, "mkdir", refuse_making)
        yield FilesystemBackend(root)
