"""The real archiver over real HTTP: what becomes of an asset whose bytes are these, by its deadline?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from pydantic import SecretStr

from archiver.core.attempt.archiver import Archiver
from archiver.core.attempt.context import Rules
from archiver.core.attempt.decisions import RetryRules
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.contents.hls.tree import HlsLimits
from archiver.core.contents.opening import ContentsOpener, OpeningRules
from archiver.core.contents.zip.zipped import ZipMode
from archiver.core.judging import Scope, judge
from archiver.core.records import keys
from archiver.core.records.manifest import Manifest, read_manifest
from archiver.core.records.verify import verify_contents
from archiver.core.upkeep.watch import reopen_ended
from archiver.hms.models import Asset, SignedUrl
from archiver.http.options import Timeouts
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import OPEN_STATES, AssetState, Row
from archiver.retry_policy import ATTEMPT, REQUEST
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.base import Engine, UploadJournal
from archiver.transfer.engine import TransferEngine
from archiver.transfer.http import HttpClient
from archiver.transfer.memory import MemoryBudget
from storage_backends.base import StorageBackend
from storage_backends.memory import MemoryBackend
from tests.core.examples import NOW, RETENTION, asset
from tests.core.fakes import Clock, FakeApi

QUICK = replace(REQUEST, attempts=2, base=timedelta())
KIB = 1024


class Api(FakeApi):
    """Signs as `url` says, again at each call."""

    def __init__(self, assets: Sequence[Asset], url: Callable[[], str]) -> None:
        super().__init__(assets)
        self._url = url

    def sign(self, asset_id: str, duration: timedelta = timedelta(hours=1)) -> SignedUrl:
        return SignedUrl(id=asset_id, url=SecretStr(self._url()), expiry=3600)


class Serving(Protocol):
    @property
    def url(self) -> str: ...


class Harness:
    """One asset. `path` is where its URL points at `origin`."""

    def __init__(
        self,
        origin: Serving,
        path: str,
        *,
        stores: Sequence[StorageBackend] = (),
        zip_mode: ZipMode = ZipMode.UNPACK,
        url: Callable[[], str] | None = None,
        part_bytes: int = 64 * KIB,
        connections: int = 4,
        ca_file: Path | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        **fields: Any,
    ) -> None:
        self.clock = Clock(NOW)
        self.ledger = MemoryLedger(self.clock)
        self.stores = list(stores) or [MemoryBackend("one")]
        self.asset = asset(**{"path": f"s3://source{path}", "size": None, **fields})
        self.api = Api([self.asset], url or (lambda: origin.url + path))
        self.api.clock = self.clock
        self._http = HttpClient(AddressPolicy(allow_private=True), ca_file=ca_file, timeouts=timeouts)
        self._part_bytes = part_bytes
        self._connections = connections
        self.archiver = Archiver(
            api=self.api,
            ledger=self.ledger,
            destinations=self.stores,
            open_contents=ContentsOpener(
                self.api,
                self._http,
                OpeningRules(policy=QUICK, zip_mode=zip_mode, hls=HlsLimits(polls=3)),
                sleep=lambda _seconds: None,
            ),
            engine=self._engine,
            rules=Rules(
                scope=Scope(RETENTION),
                retry=RetryRules(backoff=replace(ATTEMPT, base=timedelta(hours=1), cap=timedelta(hours=12))),
                key_template=keys.DEFAULT_TEMPLATE,
                lease=timedelta(minutes=2),
                lease_renew=timedelta(seconds=30),
                archiver_version="test",
            ),
            clock=self.clock,
        )
        self.ledger.discover([judge(self.asset, Scope(RETENTION))])

    def _engine(self, journal: UploadJournal, heartbeat: Heartbeat) -> Engine:
        return TransferEngine(
            MemoryBudget(64 * 2**20),
            part_bytes=self._part_bytes,
            connections=self._connections,
            uploads=4,
            journal=journal,
            on_bytes=heartbeat.moved,
            should_stop=heartbeat.check,
            policy=QUICK,
        )

    def attempt(self) -> object:
        return self.archiver.archive(self.asset.id, "test")

    def until_settled(self) -> Row:
        """Attempt after attempt, each when it is due, until the asset is at an end or long past its deadline."""
        while self.clock() < NOW + 2 * RETENTION:
            self.attempt()
            if self.row.state not in OPEN_STATES:
                break
            due = self.ledger.next_due_at()
            assert due, self.row
            self.clock.now = max(due, self.clock.now) + timedelta(seconds=1)
        return self.row

    def until_deadline(self) -> Row:
        """As the watch does: what is quarantined is looked at again until the deadline."""
        row = self.until_settled()
        while row.state is AssetState.QUARANTINED and self.clock() < NOW + RETENTION:
            self.clock.advance(timedelta(hours=6))
            if reopen_ended(self.ledger, self.clock()):
                row = self.until_settled()
        return row

    @property
    def row(self) -> Row:
        row = self.ledger.get(self.asset.id)
        assert row
        return row

    @property
    def manifest(self) -> Manifest | None:
        return read_manifest(self.stores[0], keys.manifest_key(self.asset.id, self.asset.created_at))

    @property
    def stored(self) -> Mapping[str, bytes]:
        """Return what the manifest lists, by path, as the destination has it; checked on the way."""
        manifest = self.manifest
        if manifest is None:
            return {}
        assert verify_contents(self.stores[0], manifest).ok
        return {
            item.path: self.stores[0].read(manifest.key_of(item), 0, item.size + 1)
            for item in manifest.objects
        }

    def close(self) -> None:
        self._http.close()


@dataclass(frozen=True)
class Judged:
    """What became of an asset, for tables of cases."""

    state: AssetState
    reason: str
    stored: Mapping[str, bytes]
    warnings: tuple[str, ...]
    doubts: tuple[str, ...]
    missing: tuple[str, ...]


def judged(origin: Serving, path: str, **options: Any) -> Judged:
    """Archive until it is settled."""
    harness = Harness(origin, path, **options)
    try:
        row = harness.until_settled()
        manifest = harness.manifest
        return Judged(
            row.state,
            row.reason or "",
            harness.stored,
            row.warnings,
            (manifest.doubts or ()) if manifest else (),
            (manifest.missing or ()) if manifest else (),
        )
    finally:
        harness.close()
