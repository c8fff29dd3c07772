"""Builders for the tests of this package: clients that may read loopback, signed URLs, retries without pauses."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from archiver.http.options import Timeouts
from archiver.http.session import Session
from archiver.http.waiting import complete
from archiver.retry_policy import REQUEST
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.addresses import RenewableUrl
from archiver.transfer.base import CopyRequest, SavedUpload
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget, Reservation
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl
from storage_backends.base import ObjectKey, Part, object_key
from tests.http.serving import knowing
from tests.transfer.origin import Fault, Origin, Reply, Request

CANARY = "CANARY-SIGNATURE"
HURRIED = replace(REQUEST, base=timedelta())
QUICK = Timeouts(silence=timedelta(seconds=1))  # short for the stalls, long enough for a busy machine
KEY = object_key("recordings/asset/video.mp4")


def client(timeouts: Timeouts = QUICK, ca_file: Path | None = None) -> HttpClient:
    return HttpClient(AddressPolicy(allow_private=True), timeouts=timeouts, ca_file=ca_file)


class Knowing(HttpClient):
    """A client whose sessions know the addresses of names (`host:port:address,address`) without a resolver."""

    def __init__(self, policy: AddressPolicy, *names: str, ca_file: Path | None = None) -> None:
        super().__init__(policy, ca_file=ca_file)
        self._names = names

    def session(self) -> Session:
        return knowing(super().session(), *self._names)


def reserved(memory: MemoryBudget, size_bytes: int) -> Reservation:
    """So much of `memory`, once it is there; ends early with this thread's cancellation signal."""
    return complete(memory.reserve(size_bytes))


class Signer:
    """Signs a path of an origin again at each call; `signed` counts. The signature is the canary."""

    def __init__(self, origin: Origin, path: str = "/file") -> None:
        self._origin = origin
        self._path = path
        self.signed = 0

    def __call__(self) -> SecretUrl:
        self.signed += 1
        return SecretUrl(f"{self._origin.url}{self._path}?X-Sig={CANARY}&n={self.signed}")


def source(http: HttpClient, origin: Origin, path: str = "/file") -> HttpSource:
    return HttpSource(http, RenewableUrl(Signer(origin, path)))


def expired_before(number: int) -> Fault:
    """403 to every URL signed before the `number`th."""

    def fault(request: Request, reply: Reply) -> Reply:
        return reply if int(request.query["n"][0]) >= number else Reply(403, body=b"Request has expired")

    return fault


def some_bytes(size_bytes: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def request(**changes: object) -> CopyRequest:
    return replace(CopyRequest(KEY, "video/mp4"), **changes)  # type: ignore[arg-type] # names are checked by replace


def told_by(error: BaseException) -> str:
    """Everything that a log could show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


class Journal:
    """An UploadJournal in memory. `on_part` is called with each part, and may raise."""

    def __init__(self) -> None:
        self.saved: dict[tuple[str, str], SavedUpload] = {}
        self.on_part: Callable[[Part], None] = lambda _: None

    def load(self, store: str, key: ObjectKey) -> SavedUpload | None:
        return self.saved.get((store, key))

    def begun(self, store: str, key: ObjectKey, upload: SavedUpload) -> None:
        self.saved[store, key] = upload

    def part_done(self, store: str, key: ObjectKey, part: Part) -> None:
        upload = self.saved[store, key]
        self.saved[store, key] = replace(upload, parts={**upload.parts, part.number: part})
        self.on_part(part)

    def forget(self, store: str, key: ObjectKey) -> None:
        self.saved.pop((store, key), None)
