"""Workers that are paused at a call to a store or the ledger, and resumed at any later time: a stopped virtual machine,
a connection that hangs. And a record of who wrote what."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from archiver.core.errors import ManifestError
from archiver.core.records.manifest import Manifest, read_manifest
from storage_backends.base import Limits, ObjectInfo, ObjectKey, StorageBackend
from tests.core.harness import ArchiverHarness, Tree

LEDGER_CALLS = frozenset(
    {"begin", "renew", "outrank", "settle", "add_stored", "stored_objects", "discover", "reopen"}
)
STORE_CALLS = frozenset({"put", "stat", "read", "delete", "begin", "resume"})
UPLOAD_CALLS = frozenset({"put_part", "complete", "abort", "parts"})
LONG = 60.0  # seconds until a test that hangs fails


@dataclass
class Audit:
    """What all workers did to one store. `wrong`: what none should ever do."""

    wrong: list[str] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)  # fencing tokens, in the order of the manifests
    writers: dict[tuple[str, str], str] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


class Pauser:
    """Freezes a worker at call number `at` of those named `name` ("": any), before it takes effect or after."""

    def __init__(self, name: str, at: int, *, after: bool) -> None:
        self.name, self.at, self.after = name, at, after
        self.calls = 0
        self.frozen_at: str | None = None
        self.stirred = threading.Event()  # it froze, or ended
        self.resumed = threading.Event()
        self._frozen = False
        self._lock = threading.Lock()

    def call(self, name: str, method: Callable[[], Any]) -> Any:
        with self._lock:
            counts = self.name in ("", name)
            self.calls += counts
            hit = counts and self.calls == self.at
        if hit and not self.after:
            self._freeze(name)
        elif self._frozen:
            assert self.resumed.wait(LONG)
        result = method()
        if hit and self.after:
            self._freeze(name)
        return result

    def _freeze(self, name: str) -> None:
        self._frozen, self.frozen_at = True, name
        self.stirred.set()
        assert self.resumed.wait(LONG)
        self._frozen = False


class Paused:
    """`inner` as a worker sees it that may be paused in `calls`."""

    def __init__(self, inner: Any, pauser: Pauser, calls: frozenset[str]) -> None:
        self._inner, self._pauser, self._calls = inner, pauser, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "list":
            return lambda prefix="": iter(self._pauser.call("list", lambda: list(found(prefix))))
        if name not in self._calls:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            what = getattr(args[0], "key", args[0]) if args else None
            reported = f"{name} {str(what).split('/')[0]}" if name in ("put", "stat", "read") else name
            result = self._pauser.call(reported, lambda: found(*args, **kwargs))
            is_upload = name in ("begin", "resume") and hasattr(result, "put_part")
            return Paused(result, self._pauser, UPLOAD_CALLS) if is_upload else result

        return call


class Watched:
    """A store as one worker uses it; what it does is recorded, and judged where the store can compare and swap."""

    def __init__(self, inner: StorageBackend, audit: Audit, worker: str) -> None:
        self._inner, self._audit, self._worker = inner, audit, worker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(self, spec: Any, data: Any, crc32c: int) -> ObjectInfo:
        with self._audit.lock:
            before = _manifest(self._inner, spec.key)
            info = self._inner.put(spec, data, crc32c)
            self._wrote(info)
            if spec.key.startswith("manifests/"):
                written = Manifest.model_validate_json(bytes(data))
                if not written.damage:
                    self._audit.committed.append(written.rank)
                if (
                    before is not None
                    and before.rank > written.rank
                    and self._inner.limits.conditional_replace
                ):
                    self._audit.wrong.append(f"{self._worker} replaced {before.rank} by {written.rank}")
        return info

    def begin(self, spec: Any) -> Any:
        return _WatchedUpload(self._inner.begin(spec), self)

    def resume(self, spec: Any, token: str) -> Any:
        return _WatchedUpload(self._inner.resume(spec, token), self)

    def delete(self, key: ObjectKey) -> None:
        with self._audit.lock:
            there = self._inner.stat(key)
            if there is not None:
                writer = self._audit.writers.get((str(key), str(there.etag)))
                if writer != self._worker:
                    self._audit.wrong.append(f"{self._worker} deleted {key} of {writer}")
            self._inner.delete(key)

    def _wrote(self, info: ObjectInfo) -> None:
        self._audit.writers[str(info.key), str(info.etag)] = self._worker


class _WatchedUpload:
    def __init__(self, inner: Any, store: Watched) -> None:
        self._inner, self._store = inner, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def complete(self, parts: Any, crc32c: int) -> ObjectInfo:
        with self._store._audit.lock:
            info: ObjectInfo = self._inner.complete(parts, crc32c)
            self._store._wrote(info)
        return info


class Unconditional:
    """A store that ignores every condition, and says so."""

    def __init__(self, inner: StorageBackend) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def limits(self) -> Limits:
        return replace(self._inner.limits, conditional_create=False, conditional_replace=False)

    def put(self, spec: Any, data: Any, crc32c: int) -> ObjectInfo:
        return self._inner.put(replace(spec, if_absent=False, if_match=None), data, crc32c)


class Worker:
    """One attempt at the harness's asset in a thread of its own."""

    def __init__(
        self,
        harness: ArchiverHarness,
        audits: list[Audit],
        name: str,
        contents: Callable[[], Tree],
        pauser: Pauser,
    ) -> None:
        self.name, self.pauser = name, pauser
        self.outcome: object = None
        self._harness = harness
        stores = [
            Paused(Watched(store, seen, name), pauser, STORE_CALLS)
            for store, seen in zip(harness.stores, audits, strict=True)
        ]
        self._archiver = harness.another_archiver(
            ledger=Paused(harness.ledger, pauser, LEDGER_CALLS),
            destinations=stores,
            open_contents=lambda _asset: contents(),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Until it is paused or has ended."""
        self._thread.start()
        assert self.pauser.stirred.wait(LONG), self.name

    def finish(self) -> None:
        self.pauser.resumed.set()
        self._thread.join(LONG)
        assert not self._thread.is_alive(), f"{self.name} hangs at {self.pauser.frozen_at}"
        if isinstance(self.outcome, BaseException):
            raise self.outcome

    def _run(self) -> None:
        try:
            self.outcome = self._archiver.archive(self._harness.asset_id, self.name)
        except BaseException as error:
            self.outcome = error
        finally:
            self.pauser.stirred.set()


def _manifest(store: StorageBackend, key: ObjectKey) -> Manifest | None:
    if not key.startswith("manifests/"):
        return None
    try:
        return read_manifest(store, key)
    except ManifestError:
        return None


def never() -> Pauser:
    return Pauser("", 0, after=False)
