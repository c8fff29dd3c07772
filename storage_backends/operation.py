"""The operation of a backend: the first words of its messages and the fields of its errors."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from storage_backends.errors import StorageError


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a backend. As a context manager it adds itself to every StorageError that passes.

    `name` is the method of the contract (`put`, `put_part`, ...), `verb` what messages say ("storing"), `key` None for
    a call about the whole destination. Fields that an error already has are kept: the innermost operation has failed.
    """

    name: str
    store: str
    key: str | None
    verb: str

    def __str__(self) -> str:
        return (
            f"{self.verb} {self.key!r} in {self.store}"
            if self.key is not None
            else f"{self.verb} in {self.store}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, StorageError):
            error.store = self.store if error.store is None else error.store
            error.key = self.key if error.key is None else error.key
            error.operation = self.name if error.operation is None else error.operation
