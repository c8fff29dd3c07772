"""Requests to one store, by the thread that suits their size.

A small upload costs more Python than encryption, and Python runs in one thread at a time: the thread that read the
bytes sends them. A large one costs encryption, which libcurl does outside the interpreter lock, so that two processors
share the work (docs/decisions/0007-libcurl.md has the figures).
"""

from __future__ import annotations

from archiver.http.options import Options
from archiver.http.runtime import process_runtime
from archiver.http.session import Session

SMALL_BYTES = 2 * 1024 * 1024
"""Up to this size the thread that reads sources sends an upload: segments, and hardly any part of a large file."""


class StoreSessions:
    """Of one process. Safe from several threads."""

    def __init__(self, options: Options) -> None:
        runtime = process_runtime()
        self._small_uploads = Session(runtime.small_uploads, options)
        self._all_else = Session(runtime.stores, options)

    def sending(self, size_bytes: int) -> Session:
        """Return the session for a request with a body of `size_bytes`."""
        return self._small_uploads if size_bytes <= SMALL_BYTES else self._all_else

    @property
    def reading(self) -> Session:
        """Return the session for a request without a body."""
        return self._all_else

    def close(self) -> None:
        """End all transfers and connections. Idempotent."""
        self._small_uploads.close()
        self._all_else.close()
