"""The way of an object of several parts to one store: begun or resumed, its parts sent, completed, proved; or
given up.

A lane ends exactly once: `info` is set (proved), or `error` (the store failed, others go on), or neither (given up
because the copy as a whole failed). It is told of parts by `offer`, and tells of its end by `on_end`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from storage_backends.base import ObjectInfo, ObjectSpec, Part, StorageBackend, Upload
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    ChecksumRejected,
    StorageError,
    TransientStorageError,
    UploadGone,
)
from transfer.base import SavedPart, SavedUpload
from transfer.crew import Job
from transfer.memory import Block
from transfer.sending import Dispatch, Ending, FilledPart


@dataclass(slots=True)
class _State:
    upload: Upload | None = None
    ready: dict[int, FilledPart] = field(default_factory=dict)  # not yet sent
    done: dict[int, Part] = field(default_factory=dict)
    active: int = 0  # calls to the store under way
    finish: tuple[int, int] | None = None  # parts in all and CRC of the whole, once everything was read
    completing: bool = False
    closing: bool = False  # what is ready is sent; then it is given up
    given_up: bool = False
    ended: bool = False


class Lane:
    def __init__(
        self,
        store: StorageBackend,
        spec: ObjectSpec,
        source_etag: str | None,
        dispatch: Dispatch,
        on_end: Callable[[], None],
        on_defect: Callable[[BaseException], None],
    ) -> None:
        self.store = store
        self.spec = spec
        self.info: ObjectInfo | None = None
        self.error: StorageError | None = None
        self._etag = source_etag
        self._dispatch = dispatch
        self._on_end = on_end
        self._on_defect = on_defect
        self._ending = Ending.KEEP
        self._lock = threading.Lock()
        self._state = _State()

    # -- asked for by the copy -----------------------------------------------------------------------------
    @property
    def open(self) -> bool:
        return not self._state.given_up

    @property
    def ended(self) -> bool:
        """For good: nothing of it is under way any more."""
        return self._state.ended

    @property
    def resumable(self) -> bool:
        """Whether another worker could go on: there is a journal, and a way to know the source again."""
        strong = self._etag is not None and not self._etag.startswith("W/")
        return self._dispatch.journal is not None and strong and self.spec.size_bytes is not None

    def saved(self) -> SavedUpload | None:
        """An unfinished upload of this very file in these very parts. One of another is aborted and forgotten."""
        if not self.resumable:
            return None
        saved = self._dispatch.load(self.store.name, self.spec.key)
        if saved is None:
            return None
        ours = (self.spec.size_bytes, self.spec.part_bytes, self._etag)
        if (saved.size_bytes, saved.part_bytes, saved.source_etag) == ours:
            return saved
        with suppress(StorageError):  # the sweep of orphans takes what this leaves
            self.store.resume(self.spec, saved.token).abort()
        self._forget()
        return None

    def resume(self, saved: SavedUpload, expected_bytes: Callable[[int], int]) -> Mapping[int, Part]:
        """Go on with `saved`; the parts that need not be sent. In the caller's thread. None are held when the
        store no longer knows the upload: then the lane begins anew."""
        try:
            upload = self._dispatch.persist(lambda: self.store.resume(self.spec, saved.token))
            held = self._dispatch.persist(upload.parts)
        except UploadGone:
            self._forget()
            self.begin()
            return {}
        except StorageError as error:
            self._fail(error)
            return {}
        if held is None:
            held = {p.number: Part(p.number, p.size_bytes, p.crc32c, p.tag) for p in saved.parts.values()}
        whole: dict[int, Part] = {}
        for number, part in sorted(held.items()):
            in_order = number == len(whole) + 1 or self.store.limits.parallel_parts
            if number >= 1 and in_order and part.size_bytes == expected_bytes(number):
                whole[number] = part
        with self._lock:
            self._state.upload = upload
            self._state.done = dict(whole)
        return whole

    def begin_anew(self) -> None:
        """Discard what was resumed."""
        with self._lock:
            upload, self._state.upload = self._state.upload, None
            self._state.done = {}
        if upload is not None:
            with suppress(StorageError):  # the sweep of orphans takes what this leaves
                upload.abort()
        self.begin()

    def begin(self) -> None:
        """Begin an upload, in the background; parts may be offered meanwhile."""
        self._add(self._begin)

    def offer(self, part: FilledPart) -> None:
        """Send `part`, unless this store holds it already."""
        with self._lock:
            held = self._state.done.get(part.number)
            over = self._state.given_up or self._state.closing
            if over or (held is not None and held.crc32c == part.crc32c):
                return
            stuck = held is not None and not self.store.limits.parallel_parts
            if not stuck:
                self._state.done.pop(part.number, None)
                self._state.ready[part.number] = part.hold()
        if stuck:
            self._fail(
                UploadGone(
                    f"{self.store.name} holds another part {part.number} of {self.spec.key!r}: begin again"
                )
            )
        self._pump()

    def finish(self, parts: int, whole_crc: int) -> None:
        """Everything was read and checks out: complete when the last part is there."""
        with self._lock:
            self._state.finish = (parts, whole_crc)
        self._pump()

    def give_up(self, ending: Ending) -> None:
        """End without an object, when calls under way have ended. Does nothing after the end."""
        if ending is Ending.SEND and self.resumable:
            with self._lock:
                self._ending = ending
                self._state.closing = True
            self._pump()
            self._end_if_over()
        else:
            self._drop(ending)

    def fail(self, error: StorageError) -> None:
        """End with `error`, before anything was sent."""
        self._fail(error)

    # -- the work ------------------------------------------------------------------------------------------
    def _begin(self) -> None:
        upload = self._dispatch.persist(lambda: self.store.begin(self.spec))
        if self.resumable:
            assert self.spec.size_bytes is not None
            saved = SavedUpload(upload.token, self.spec.size_bytes, self.spec.part_bytes, self._etag, {})
            self._dispatch.note(lambda journal: journal.begun(self.store.name, self.spec.key, saved))
        with self._lock:  # only now: a part that is sent before its upload is noted is noted nowhere
            self._state.upload = upload

    def _pump(self) -> None:
        """Set to work whatever can be done now."""
        jobs: list[tuple[Callable[[], None], Callable[[], None]]] = []
        with self._lock:
            state = self._state
            if state.upload is None or state.given_up or state.completing:
                return
            for number in sorted(state.ready):
                if not self.store.limits.parallel_parts and (state.active or number != len(state.done) + 1):
                    break
                part = state.ready.pop(number)
                state.active += 1
                jobs.append((partial(self._send, state.upload, part), part.release))
            if state.finish and not state.active and len(state.done) == state.finish[0]:
                state.completing = True
                state.active += 1
                jobs.append((partial(self._complete, state.upload, *state.finish), _nothing))
        for work, cleanup in jobs:
            self._add(work, cleanup, counted=True)

    def _send(self, upload: Upload, part: FilledPart) -> None:
        sent = self._dispatch.persist(
            lambda: upload.put_part(part.number, part.data, part.crc32c),
            TransientStorageError,
            ChecksumRejected,
        )
        with self._lock:
            self._state.done[part.number] = sent
        if self.resumable:
            receipt = SavedPart(sent.number, sent.size_bytes, sent.crc32c, sent.tag)
            self._dispatch.note(lambda journal: journal.part_done(self.store.name, self.spec.key, receipt))

    def _complete(self, upload: Upload, parts: int, whole_crc: int) -> None:
        in_order = [self._state.done[number] for number in range(1, parts + 1)]
        info = self._dispatch.persist(lambda: upload.complete(in_order, whole_crc))
        size_bytes = sum(part.size_bytes for part in in_order)
        self._dispatch.prove(self.store, self.spec.key, info, size_bytes, whole_crc)
        self.info = info
        self._forget()

    # -- ends ----------------------------------------------------------------------------------------------
    def _add(
        self, work: Callable[[], None], cleanup: Callable[[], None] | None = None, *, counted: bool = False
    ) -> None:
        """Have `work` done by the crew; `cleanup` afterwards, come what may."""
        if not counted:
            with self._lock:
                self._state.active += 1

        def run(_: Block | None) -> None:
            error: BaseException | None = None
            try:
                work()
            except StorageError as raised:
                self._fail(raised)
            except BaseException as raised:  # noqa: BLE001 - the copy as a whole judges it
                error = raised
            leave(error)

        def leave(error: BaseException | None) -> None:
            (cleanup or _nothing)()
            with self._lock:
                self._state.active -= 1
            if error is not None:
                self._on_defect(error)
            self._pump()
            self._end_if_over()

        self._dispatch.crew.add(Job(run, leave, wanted=lambda: self.open))

    def _fail(self, error: StorageError) -> None:
        with self._lock:
            self.error = self.error or error
        # a destination that a person will mend, or that will answer again, is worth coming back to
        later = isinstance(error, TransientStorageError | AccessDenied | BucketMissing)
        self._drop(Ending.KEEP if later else Ending.DISCARD)

    def _drop(self, ending: Ending) -> None:
        with self._lock:
            if self._state.given_up or self._state.ended:
                return
            self._state.given_up = True
            self._ending = ending
            unsent, self._state.ready = list(self._state.ready.values()), {}
        for part in unsent:
            part.release()
        self._end_if_over()

    def _end_if_over(self) -> None:
        abandoned: Upload | None = None
        unsent: list[FilledPart] = []
        with self._lock:
            state = self._state
            if state.closing and not state.active:
                state.given_up = (
                    True  # parts that are still ready wait for others, which do not come any more
                )
                unsent, state.ready = list(state.ready.values()), {}
            if state.ended or state.active or not (state.given_up or self.info is not None):
                return
            state.ended = True
            if self.info is None and state.upload is not None:
                kept = self._ending is Ending.LEAVE or (self._ending is not Ending.DISCARD and self.resumable)
                abandoned = None if kept else state.upload
        for part in unsent:
            part.release()
        try:
            if abandoned is not None:
                with suppress(StorageError):  # the sweep of orphans takes what this leaves
                    abandoned.abort()
                self._forget()
        except BaseException as error:  # noqa: BLE001 - whatever it is, a lane ends, or its copy never would
            self._on_defect(error)
        finally:
            self._on_end()

    def _forget(self) -> None:
        if self.resumable:
            self._dispatch.note(lambda journal: journal.forget(self.store.name, self.spec.key))


def _nothing() -> None:
    return
