"""The 100ms API and the storage behind it, as Protocols and in memory."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from archiver.hms.errors import (
    HmsError,
    HmsInvalidResponse,
    HmsNotFound,
    HmsRateLimited,
    HmsUnauthorized,
    HmsUnavailable,
)
from archiver.hms.models import Asset, Page, SignedUrl
from archiver.http.connections import Connection
from archiver.http.direct import DirectSession
from archiver.http.errors import BrokenOff, CouldNotConnect, HttpError, TooSlow
from archiver.http.session import Session
from archiver.http.transfer import Request, Transfer
from archiver.http.waiting import Wait, complete
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.checksums import crc32c
from archiver.transfer.http import HttpClient
from tests.simulation.faults import Faults
from tests.simulation.scheduler import DAY, HOUR, MINUTE, Process, Scheduler
from tests.simulation.truth import HOST, TrueAsset

T = TypeVar("T")

PAGE = 10
SIGNED_FOR = 1 * HOUR
CLOCK_FAULTS = {"an hour ahead": HOUR, "a day ahead": DAY, "a day behind": -DAY, "20 days ahead": 20 * DAY}
ERROR_XML = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code></Error>'


class Sources:
    """What all processes see of 100ms."""

    def __init__(self, scheduler: Scheduler, faults: Faults, assets: list[TrueAsset]) -> None:
        self.scheduler = scheduler
        self.faults = faults
        self.assets = {asset.id: asset for asset in assets}

    # -- the API ---------------------------------------------------------------------------------------------
    def api_clock(self) -> datetime:
        skew = CLOCK_FAULTS.get(self.faults.active("api clock", self.scheduler.seconds) or "", 0.0)
        return self.scheduler.now() + timedelta(seconds=skew)

    def rows_without_id(self) -> int:
        return 2 if self.faults.active("api rows", self.scheduler.seconds) else 0

    def listed(self) -> list[TrueAsset]:
        """Newest first."""
        now = self.scheduler.seconds
        return sorted(
            (asset for asset in self.assets.values() if asset.listed(now)),
            key=lambda asset: (-asset.created, asset.number),
        )

    def check_api(self, process: str, what: str, asset_id: str = "") -> None:
        now = self.scheduler.seconds
        kind = self.faults.active("api", now) or self.faults.active(f"api:{process}", now)
        if kind == "503":
            raise HmsUnavailable(f"GET {what}: 503")
        if kind == "429":
            raise HmsRateLimited(f"GET {what}: 429", timedelta(seconds=30))
        if kind == "403":
            raise HmsUnauthorized(f"GET {what}: 403")
        if kind == "garbled":
            raise HmsInvalidResponse(f"GET {what}: no JSON")
        if kind == "404" and asset_id:
            raise HmsNotFound(f"GET {what}: 404")

    def asset(self, asset_id: str) -> TrueAsset:
        asset = self.assets[asset_id]
        if not asset.listed(self.scheduler.seconds):
            raise HmsNotFound(f"GET /recording-assets/{asset_id}: 404")
        return asset

    # -- storage ---------------------------------------------------------------------------------------------
    def reply(self, request: Request) -> tuple[list[bytes], bytes, HttpError | None]:
        """Lines of the head, body, and how the connection breaks off, if it does."""
        now, url = self.scheduler.seconds, urlsplit(request.url)
        asset_id, _, path = url.path.lstrip("/").partition("/")
        asset = self.assets.get(asset_id)
        if asset is None:
            return _head(404, 9), b"not found", None
        signed = float(parse_qs(url.query).get("t", ["-1e9"])[0])
        kind = self.faults.active("source", now) or self.faults.active(f"source:{asset_id}", now)
        if kind == "503" or kind == "429":
            return _head(int(kind), len(ERROR_XML), {"Retry-After": "5"}), ERROR_XML, None
        if kind == "403" or (now - signed > SIGNED_FOR and not asset.is_tree):
            return _head(403, 6), b"denied", None
        if kind == "refused":
            raise CouldNotConnect("refused")
        if kind == "silent":
            raise TooSlow("nothing came")
        version = asset.version_at(now)
        if kind == "404" or not asset.is_there(now) or path not in version.files:
            return _head(404, len(ERROR_XML)), ERROR_XML, None
        if kind == "404 on one file" and path.endswith("1.ts"):
            return _head(404, len(ERROR_XML)), ERROR_XML, None
        if kind == "only the first half" and _is_second_half(version.files[path], path, request):
            return _head(503, len(ERROR_XML)), ERROR_XML, None
        if kind == "error page":
            return _head(200, len(ERROR_XML), {"Content-Type": "application/xml"}), ERROR_XML, None
        return self._file(asset, path, request, kind)

    def _file(
        self, asset: TrueAsset, path: str, request: Request, kind: str | None
    ) -> tuple[list[bytes], bytes, HttpError | None]:
        version = asset.version_at(self.scheduler.seconds)
        body, etag = version.files[path], version.etag(path)
        if kind == "stale edge" and self.scheduler.rng.random() < 0.5:
            old = asset.versions[0]
            body, etag = old.files.get(path, body), old.etag(path) if path in old.files else etag
        if request.headers.get("If-Match", etag) != etag:
            return _head(412, 0), b"", None
        extra = {"ETag": etag, "Content-Type": "application/octet-stream"}
        if asset.checksums and not asset.is_tree:
            extra["x-amz-checksum-crc32c"] = _base64(crc32c(body))
            extra["x-amz-checksum-type"] = "FULL_OBJECT"
        total = len(body)
        status = 200
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if found and total and kind != "no ranges":
            first, last = int(found[1]), min(int(found[2]), total - 1)
            if first >= total:
                return _head(416, 0, {"Content-Range": f"bytes */{total}"}), b"", None
            status, body = 206, body[first : last + 1]
            extra["Content-Range"] = f"bytes {first}-{last}/{total}"
        announced: int | None = len(body)
        error: HttpError | None = None
        chance = self.scheduler.rng.random()
        if kind == "cut" and len(body) > 1 and chance < 0.7:
            body, error = body[: self.scheduler.rng.randrange(len(body))], BrokenOff("closed early")
        if kind == "unframed" and status == 200:
            announced = None
            if len(body) > 1 and chance < 0.6:
                body = body[: self.scheduler.rng.randrange(1, len(body))]
        if kind == "wrong bytes" and asset.checksums and body and chance < 0.7 and not asset.is_tree:
            at = self.scheduler.rng.randrange(len(body))
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        return _head(status, announced, extra), body, error


def _is_second_half(body: bytes, path: str, request: Request) -> bool:
    found = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
    return path.endswith("1.ts") or (found is not None and int(found[1]) > len(body) // 2)


def _base64(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _head(status: int, length: int | None, extra: dict[str, str] | None = None) -> list[bytes]:
    lines = [f"HTTP/1.1 {status} X\r\n".encode()]
    if length is not None:
        lines.append(f"Content-Length: {length}\r\n".encode())
    lines += [f"{name}: {value}\r\n".encode() for name, value in (extra or {}).items()]
    return [*lines, b"\r\n"]


class SimApi:
    """`hms.base.RecordingAssets` and `TellsTime`, for one process."""

    def __init__(self, process: Process, sources: Sources) -> None:
        self._process = process
        self._sources = sources
        self._answered = False

    def api_time(self) -> datetime | None:
        """See `hms.base.TellsTime`."""
        return self._sources.api_clock() if self._answered else None

    def pages(
        self,
        *,
        room_id: str | None = None,
        session_id: str | None = None,
        status: str | None = None,
        start: str | None = None,
    ) -> Iterator[Page]:
        after: str | None = None
        while True:
            page = self._ask("list", partial(self._page, after))
            yield page
            if page.next_start is None:
                return
            after = page.next_start

    def asset(self, asset_id: str) -> Asset:
        def answer() -> Asset:
            self._sources.check_api(self._process.name, f"/recording-assets/{asset_id}", asset_id)
            return self._sources.asset(asset_id).described(self._sources.scheduler.seconds)

        return self._ask(f"asset {asset_id[-4:]}", answer)

    def sign(self, asset_id: str, duration: timedelta = timedelta(hours=1)) -> SignedUrl:
        def answer() -> SignedUrl:
            self._sources.check_api(
                self._process.name, f"/recording-assets/{asset_id}/presigned-url", asset_id
            )
            asset = self._sources.asset(asset_id)
            url = f"https://{HOST}/{asset_id}/{asset.entry}?t={self._sources.scheduler.seconds:.3f}"
            return SignedUrl(id=asset_id, url=SecretStr(url), expiry=3600)

        return self._ask(f"sign {asset_id[-4:]}", answer)

    def _page(self, after: str | None) -> Page:
        self._sources.check_api(self._process.name, "/recording-assets")
        rows = self._sources.listed()
        ids = [row.id for row in rows]
        at = ids.index(after) + 1 if after in ids else 0
        if after is not None and after not in ids:  # it went away meanwhile: from the start again
            at = 0
        chosen = rows[at : at + PAGE]
        more = at + PAGE < len(rows)
        described = tuple(row.described(self._sources.scheduler.seconds) for row in chosen)
        nameless = self._sources.rows_without_id() if after is None else 0
        return Page(assets=described, next_start=chosen[-1].id if more else None, invalid_rows=nameless)

    def _ask(self, what: str, answer: Callable[[], T]) -> T:
        def lost() -> HmsError:
            return HmsUnavailable(f"GET {what}: no answer")

        def answered() -> T:
            self._answered = True
            return answer()

        return self._process.call(f"api {what}", answered, lost)


class SimSession:
    """As much of `archiver.http.session.Session` as a `Transfer` asks for: every transfer is served at once."""

    def __init__(self, process: Process, sources: Sources, *, alone: bool = False) -> None:
        """`alone`: every request over a connection of its own."""
        self._process = process
        self._sources = sources
        self._alone = alone
        self._connection = Connection(tls=False)
        self._held: dict[Transfer, tuple[bytes, HttpError | None]] = {}

    def submit(self, transfer: Transfer) -> None:
        if transfer.done:
            return
        request = transfer.request
        path = urlsplit(request.url).path
        what = f"source {path[-30:]} {request.headers.get('Range', '')}"
        slow = self._sources.faults.active("source", self._sources.scheduler.seconds) == "slow"
        latency = self._sources.scheduler.rng.uniform(1, 400) if slow else 0.0
        try:
            reply = self._process.call(
                what, lambda: self._sources.reply(request), lambda: BrokenOff("no answer"), latency
            )
            self._maybe_change(path)
            self._note_read(path)
            if transfer.done:
                return
            lines, body, broken = reply
            for line in lines:
                transfer.on_line(line)
        except Exception as error:
            transfer.finish(error)
            return
        self._held[transfer] = (body, broken)
        self._body(transfer)

    def _maybe_change(self, path: str) -> None:
        """Pause the worker in the middle of a tree, and bring its next version meanwhile. Most such pauses end before
        another worker has the asset."""
        scheduler, rng = self._sources.scheduler, self._sources.scheduler.changes_rng
        asset = self._sources.assets.get(path.lstrip("/").partition("/")[0])
        if asset is None or not path.endswith(".ts") or asset.versions[-1].since <= scheduler.seconds:
            return
        if rng.random() < scheduler.weather.change_in_tree and self._process.alive:
            changes_at = scheduler.seconds + rng.uniform(0, MINUTE)
            asset.versions[-1] = replace(asset.versions[-1], since=changes_at)
            self._sources.faults.end(f"source:{asset.id}", "only the first half", changes_at)
            self._process.pause(rng.uniform(MINUTE, 12 * MINUTE), machine_sleeps=True)
            self._process.sleep(0.0)

    def _note_read(self, path: str) -> None:
        """For the oracle: a source that changes between the two may have given files of two versions."""
        process, now = self._process, self._sources.scheduler.seconds
        asset_id = path.lstrip("/").partition("/")[0]
        first, _ = process.source_reads.get(asset_id, (float("-inf"), 0.0))
        if first < process.attempt_began:
            process.source_reads[asset_id] = (now, now)
        elif path.endswith(".ts"):
            process.source_reads[asset_id] = (first, now)

    def cancel(self, transfer: Transfer) -> None:
        self._held.pop(transfer, None)
        transfer.finish(HttpError("it was cancelled"))

    def unpause(self, transfer: Transfer) -> None:
        self._body(transfer)

    def condition(self) -> threading.Condition:
        return threading.Condition()

    def close(self) -> None:
        self._held.clear()

    def in_loop(self, action: Callable[[], None]) -> None:
        action()

    def _body(self, transfer: Transfer) -> None:
        held = self._held.get(transfer)
        if held is None:
            return
        body, error = held
        try:
            if body and not transfer.on_data(body):
                return
        except Exception as refused:
            self._held.pop(transfer, None)
            transfer.finish(refused)
            return
        self._held.pop(transfer, None)
        request = transfer.request
        own = request.fresh or request.alone or self._alone
        connection = Connection(tls=False) if own else self._connection
        connection.served += 1
        transfer.connection, transfer.ordinal = connection, connection.served
        transfer.finish(error)


class SimClient(HttpClient):
    def __init__(self, process: Process, sources: Sources) -> None:
        super().__init__(AddressPolicy())
        self._process = process
        self._sources = sources

    def session(self) -> Session:
        return SimSession(self._process, self._sources)  # type: ignore[return-value] # as much as is asked for

    @contextmanager
    def direct(self) -> Iterator[DirectSession]:
        yield SimDirect(SimSession(self._process, self._sources, alone=True))  # type: ignore[misc] # as above


class SimDirect:
    """As much of `archiver.http.direct.DirectSession` as a source asks for."""

    def __init__(self, session: SimSession) -> None:
        self.session = session

    def complete(self, coroutine: Coroutine[Wait[Any], Any, T]) -> T:
        return complete(coroutine)
