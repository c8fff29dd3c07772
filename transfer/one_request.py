"""The way of an object of one part to one store: one request, proved.

What `transfer.lane.Lane` is for several parts, without an upload that could be resumed or left behind: a tree has tens
of thousands of these.
"""

from __future__ import annotations

from collections.abc import Callable

from storage_backends.base import ObjectInfo, ObjectSpec, StorageBackend
from storage_backends.errors import ChecksumRejected, StorageError, TransientStorageError
from transfer.crew import Job
from transfer.memory import Block
from transfer.sending import Dispatch, Ending, FilledPart


class OneRequest:
    """Ends exactly once, with `info` set (proved), with `error` (the store failed, others go on), or with neither
    (given up). Tells of it by `on_end`; what is no failure of the store goes to `on_defect` before."""

    __slots__ = (
        "_dispatch", "_given_up", "_on_defect", "_on_end", "_part", "_spec", "ended", "error", "info", "store"
    )  # fmt: skip

    def __init__(
        self,
        store: StorageBackend,
        spec: ObjectSpec,
        part: FilledPart,
        dispatch: Dispatch,
        on_end: Callable[[], None],
        on_defect: Callable[[BaseException], None],
    ) -> None:
        self.store = store
        self.info: ObjectInfo | None = None
        self.error: StorageError | None = None
        self.ended = False
        self._spec = spec
        self._part = part
        self._dispatch = dispatch
        self._on_end = on_end
        self._on_defect = on_defect
        self._given_up = False

    @property
    def open(self) -> bool:
        return not self._given_up

    def begin(self) -> None:
        """Send it, in the background."""
        self._part.hold()
        self._dispatch.crew.add(Job(self._run, self._end, wanted=lambda: not self._given_up))

    def give_up(self, _: Ending) -> None:
        """Not to be sent, unless it is being sent already."""
        self._given_up = True

    def fail(self, error: StorageError) -> None:
        """End with `error`, before it was sent."""
        self.error = error
        self._given_up = True

    def _run(self, _: Block | None) -> None:
        try:
            info = self._dispatch.persist(self._put, TransientStorageError, ChecksumRejected)
            part = self._part
            self._dispatch.prove(self.store, self._spec.key, info, part.size_bytes, part.crc32c)
            self.info = info
        except StorageError as error:
            self.error = error
        except BaseException as error:  # noqa: BLE001 - the copy as a whole judges it
            self._end(error)
            return
        self._end(None)

    def _put(self) -> ObjectInfo:
        return self.store.put(self._spec, self._part.data, self._part.crc32c)

    def _end(self, defect: BaseException | None) -> None:
        self._part.release()
        self.ended = True
        if defect is not None:
            self._on_defect(defect)
        self._on_end()
