"""One large object on its way to one store: an upload in parts that another worker can resume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from archiver.http.waiting import blocking
from archiver.transfer.base import SavedUpload
from archiver.transfer.errors import Stopped
from archiver.transfer.storing import FilledPart, StoreTools
from archiver.transfer.tasks import Gate, Task
from storage_backends.base import ObjectInfo, ObjectSpec, Part, StorageBackend, Upload
from storage_backends.crc32c import of_parts
from storage_backends.errors import (
    AccessDenied,
    BucketMissing,
    StorageError,
    TransientStorageError,
    UploadGone,
)

T = TypeVar("T")


class Ending(Enum):
    """What becomes of an upload that will not be completed now."""

    DISCARD = "aborted and forgotten: nobody should resume it"
    KEEP = "left for another attempt, when that can find it; else aborted"
    SEND = "the same, once the parts that were read already are sent"
    LEAVE = "not touched: the copy was cancelled, perhaps because the asset is another worker's now"


class _GivenUp(Exception):
    """What is raised in jobs that are not to begin any more."""


@dataclass(slots=True, eq=False)
class _Job:
    """A call to the store, and what leads to it."""

    task: Task | None = None
    in_call: bool = False  # it ends by itself; else it can be stopped
    waits_its_turn: bool = False  # for a part before it, which may never come


class PartsUpload:
    """Ends with `info` set (verified), with `error` (the store failed, others go on), or with neither (given up because
    the copy as a whole failed). `on_fail` is told when the store failed, `on_defect` of whatever is no failure of the
    store."""

    def __init__(
        self,
        store: StorageBackend,
        spec: ObjectSpec,
        source_etag: str | None,
        tools: StoreTools,
        on_fail: Callable[[], None],
        on_defect: Callable[[BaseException], None],
    ) -> None:
        self.store = store
        self.spec = spec
        self.info: ObjectInfo | None = None
        self.error: StorageError | None = None
        self._etag = source_etag
        self._tools = tools
        self._on_fail = on_fail
        self._on_defect = on_defect
        self._upload: Upload | None = None
        self._resumed = False
        self._found: ObjectInfo | None = None  # at the key, instead of the upload that was to be resumed
        self._found_crc: int | None = None  # its CRC32C, once it was read back
        self._begun = Gate()
        self._done: dict[int, Part] = {}
        self._turns: dict[int, tuple[Gate, _Job]] = {}  # of parts that wait for the one before
        self._jobs: dict[_Job, None] = {}  # in the order in which they began
        self._changed: Gate | None = None  # opened when a job ends or waits
        self._closing = False

    # -- asked by the copy ---------------------------------------------------------------------------------
    @property
    def open(self) -> bool:
        """Return whether it may still end well."""
        return self.error is None and not self._closing

    @property
    def resumable(self) -> bool:
        """Return whether another worker could resume it: there is a journal, and a way to know the source again."""
        strong = self._etag is not None and not self._etag.startswith("W/")
        return self._tools.journal is not None and strong and self.spec.size_bytes is not None

    async def saved(self) -> SavedUpload | None:
        """An unfinished upload of this very file in these very parts. One of another is aborted and forgotten."""
        if not self.resumable:
            return None
        saved = await self._tools.load(self.store.name, self.spec.key)
        if saved is None:
            return None
        if (saved.size_bytes, saved.part_bytes, saved.source_etag) == (
            self.spec.size_bytes,
            self.spec.part_bytes,
            self._etag,
        ):
            return saved
        with suppress(StorageError):  # the sweep of orphans takes what this leaves
            await blocking(lambda: self.store.resume(self.spec, saved.token).abort())
        await self._forget()
        return None

    async def resume(self, saved: SavedUpload, expected_bytes: Callable[[int], int]) -> Mapping[int, Part]:
        """Resume `saved`; the parts that need not be read. None are held when the store no longer knows the upload, nor
        an object that it may have been completed to: then it restarts."""
        self._resumed = True
        try:
            upload = await self._tools.ask(lambda: self.store.resume(self.spec, saved.token))
            held = await self._tools.ask(upload.parts)
        except UploadGone:
            if not await self._is_completed(saved):
                if self.open:
                    await self._forget()
                    self._resumed = False
                    self.begin()
                return {}
            upload, held = None, None
        except StorageError as error:
            self.fail(error)
            return {}
        if held is None:
            held = saved.parts
        for number, part in sorted(held.items()):
            in_order = number == len(self._done) + 1 or self.store.limits.parallel_parts
            if number >= 1 and in_order and part.size_bytes == expected_bytes(number):
                self._done[number] = part
        self._upload = upload
        self._begun.open()
        return dict(self._done)

    async def _is_completed(self, saved: SavedUpload) -> bool:
        """Whether an object of the right size is at the key: the upload was completed, and nobody heard of it. Its
        content is compared now, where the journal knows every part, else by `finish`."""
        if not await self._find():
            return False
        in_order = [saved.parts.get(number) for number in range(1, len(saved.parts) + 1)]
        parts = [part for part in in_order if part is not None]
        if sum(part.size_bytes for part in parts) != saved.size_bytes:
            return True
        if await self._found_is(of_parts(parts)):
            return True
        self._found = self._found_crc = None
        return False

    async def _find(self) -> bool:
        """Look for the object that the resumed upload became. Nothing is sent any more when it is there."""
        if not self._resumed or self.spec.size_bytes is None:
            return False
        if self._found is None:
            try:
                info = await self._tools.ask(lambda: self.store.stat(self.spec.key))
            except StorageError as error:
                self.fail(error)
                return False
            if info is None or info.size_bytes != self.spec.size_bytes:
                return False
            self._found = info
            for job in list(self._jobs):
                if not job.in_call and job.task is not None:
                    job.task.throw(_GivenUp())
        return True

    async def _found_is(self, crc: int) -> bool:
        found = self._found
        assert found is not None, "it is compared when it was found"
        try:
            if self._found_crc is None:
                self._found_crc = await self._tools.crc_of(
                    self.store, found, self.spec.key, may_yield=self.resumable
                )
        except StorageError as error:
            self.fail(error)
            return False
        return self._found_crc == crc

    async def restart(self) -> None:
        """Discard what was resumed and restart."""
        self._resumed, self._found, self._found_crc = False, None, None
        upload, self._upload = self._upload, None
        self._done, self._begun = {}, Gate()
        if upload is not None:
            with suppress(StorageError):  # the sweep of orphans takes what this leaves
                await blocking(upload.abort)
        self.begin()

    def begin(self) -> None:
        """Begin an upload; parts may be offered meanwhile."""
        self._spawn(self._begin)

    def offer(self, part: FilledPart) -> None:
        """Send `part`, unless this store holds it already."""
        held = self._done.get(part.number)
        if not self.open or self._found is not None or (held is not None and held.crc32c == part.crc32c):
            return
        if held is not None and not self.store.limits.parallel_parts:
            self.fail(
                UploadGone(
                    f"{self.store.name} holds another part {part.number} of {self.spec.key!r}: restart the upload"
                )
            )
            return
        self._done.pop(part.number, None)
        part.hold()
        self._spawn(lambda job: self._send(part, job), part.release)

    async def finish(self, count: int, whole_crc: int) -> None:
        """Everything was read and checks out: complete it when the last part is there, and verify it."""
        await self._all_quiet()
        if self.open and self._found is None:
            self._spawn(lambda job: self._complete(count, whole_crc, job))
            await self._all_quiet()
        if self.open and self._found is not None:
            if await self._found_is(whole_crc):
                self.info = replace(self._found, crc32c=whole_crc)
                return
            if self.open:  # else it could not be read: the next attempt compares it
                self.fail(
                    UploadGone(f"{self.store.name} holds another {self.spec.key!r}: restart the upload")
                )
                await self._forget()

    async def give_up(self, ending: Ending) -> None:
        """End without an object, once calls under way have ended."""
        if ending is Ending.SEND and self.resumable and self.open:
            await self._all_quiet(stranded=True)
        self.begin_no_more()
        await self._all_quiet()
        kept = ending is not Ending.DISCARD and self.resumable and self._keeps
        if self.info is None and self._upload is not None and not kept:
            with suppress(StorageError):  # the sweep of orphans takes what this leaves
                await blocking(self._upload.abort)
            await self._forget()

    def leave(self) -> None:
        """End at once and touch nothing."""
        self._closing = True
        for job in list(self._jobs):
            if job.task is not None:
                job.task.throw(Stopped("the copy was cancelled"))

    def fail(self, error: StorageError) -> None:
        """The store failed, perhaps in a call that was under way when the copy did; what it holds is kept where that is
        of use to another attempt."""
        if self.error is not None:
            return
        self.error = error
        if not self._closing:
            self.begin_no_more()
            self._on_fail()

    async def settle(self) -> None:
        """Forget what was completed. Only once no other store of the copy needs another attempt, which then knows
        again what this one holds."""
        if self.info is not None:
            await self._forget()

    async def close(self) -> None:
        """After a failure of the store: end it."""
        await self._all_quiet()
        if self.error is not None and self.info is None:
            await self.give_up(Ending.KEEP if self._keeps else Ending.DISCARD)

    # -- the work ------------------------------------------------------------------------------------------
    @property
    def _keeps(self) -> bool:
        """A destination that a person will put right, or that will answer again, is worth coming back to."""
        return self.error is None or isinstance(
            self.error, TransientStorageError | AccessDenied | BucketMissing
        )

    async def _begin(self, job: _Job) -> None:
        upload = await self._in_slot(job, lambda: self._tools.ask(lambda: self.store.begin(self.spec)))
        self._upload = upload
        if self.resumable:
            assert self.spec.size_bytes is not None
            saved = SavedUpload(upload.token, self.spec.size_bytes, self.spec.part_bytes, self._etag, {})
            await self._tools.note(lambda journal: journal.begun(self.store.name, self.spec.key, saved))
        self._begun.open()  # only now: a part that is sent before its upload is noted is noted nowhere

    async def _send(self, part: FilledPart, job: _Job) -> None:
        if not self._begun.is_open:
            await self._begun
        if not self.store.limits.parallel_parts and part.number != len(self._done) + 1:
            turn = Gate()
            self._turns[part.number] = turn, job
            job.waits_its_turn = True
            self._tell()
            await turn
        upload = self._upload
        assert upload is not None

        send: Callable[..., Awaitable[Part]] | None = getattr(upload, "send_part", None)  # see `SendsParts`

        async def once() -> Part:
            if send is not None:
                return await send(part.number, part.data, part.crc32c)
            return await blocking(lambda: upload.put_part(part.number, part.data, part.crc32c))

        async def sent_and_noted() -> None:
            sent = await self._tools.send(once)
            if self.resumable:
                await self._tools.note(
                    lambda journal: journal.part_done(self.store.name, self.spec.key, sent)
                )
            # only now may the next one go: after a crash at most one is sent again
            self._done[part.number] = sent
            if (waiting := self._turns.pop(part.number + 1, None)) is not None:
                gate, waiter = waiting
                waiter.waits_its_turn = False
                gate.open()

        await self._in_slot(job, sent_and_noted)

    async def _complete(self, count: int, whole_crc: int, job: _Job) -> None:
        upload = self._upload
        assert upload is not None
        in_order = [self._done[number] for number in range(1, count + 1)]

        async def completed() -> ObjectInfo:
            info = await self._tools.ask(lambda: upload.complete(in_order, whole_crc))
            size_bytes = sum(part.size_bytes for part in in_order)
            await self._tools.verify(
                self.store, self.spec.key, info, size_bytes, whole_crc, may_yield=self.resumable
            )
            return info

        self.info = await self._in_slot(job, completed)

    async def _forget(self) -> None:
        if self.resumable:
            await self._tools.note(lambda journal: journal.forget(self.store.name, self.spec.key))

    async def _in_slot(self, job: _Job, call: Callable[[], Awaitable[T]]) -> T:
        slots = self._tools.slots(self.store)
        await slots.take()
        job.in_call = True
        try:
            return await call()
        finally:
            slots.release()

    # -- jobs ----------------------------------------------------------------------------------------------
    def _spawn(
        self, work: Callable[[_Job], Awaitable[None]], cleanup: Callable[[], None] | None = None
    ) -> None:
        job = _Job()

        async def run() -> None:
            try:
                await work(job)
            except UploadGone as error:  # no matter, when it was completed
                if not await self._find():
                    self.fail(error)
            except StorageError as error:
                self.fail(error)
            finally:
                if cleanup is not None:
                    cleanup()

        self._jobs[job] = None
        job.task = Task(self._tools.runs, run())
        job.task.start(lambda _, error: self._ended(job, error))
        job.task.begin()

    def _ended(self, job: _Job, error: BaseException | None) -> None:
        self._jobs.pop(job, None)
        if error is not None and not self._closing and not isinstance(error, _GivenUp):
            self._on_defect(error)
        self._tell()

    def begin_no_more(self) -> None:
        """Calls under way end; those that wait are not made, and nothing is completed."""
        self._closing = True
        for job in list(self._jobs):
            if not job.in_call and job.task is not None:
                job.task.throw(_GivenUp())

    async def _all_quiet(self, *, stranded: bool = False) -> None:
        """Wait until no job is under way; `stranded`: but those that wait for a part which will not come."""
        while any(not (stranded and job.waits_its_turn) for job in self._jobs):
            self._changed = Gate()
            await self._changed

    def _tell(self) -> None:
        if self._changed is not None and not self._changed.is_open:
            self._changed.open()
