"""The archiver as a client: one job, by the engine and the contents that a worker uses, wired as worker.bootstrap does.

Told by JSON on its input, a `clients.Task`. Nothing is left out: every object is proved by the store's checksum, trees
and zips are walked, parsed and copied in phases, uploads are journalled and a heartbeat runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from archiver.core.attempt.copying import Copier
from archiver.core.attempt.heartbeat import Heartbeat
from archiver.core.attempt.upload_journal import LedgerUploadJournal
from archiver.core.contents.base import Item
from archiver.core.contents.hls.tree import HlsContents
from archiver.core.contents.zip.zipped import ZipContents
from archiver.http import cancellation
from archiver.ledger.memory.ledger import MemoryLedger
from archiver.ledger.models import AssetState, Seen
from archiver.transfer.address_policy import AddressPolicy
from archiver.transfer.addresses import FixedAddress
from archiver.transfer.engine import TransferEngine
from archiver.transfer.http import Address, HttpClient
from archiver.transfer.memory import MemoryBudget
from archiver.transfer.source import HttpSource
from archiver.transfer.urls import SecretUrl
from benchmarks.measure import ready
from storage_backends.base import object_key
from storage_backends.registry import open_destination
from worker import bootstrap as all_that_a_worker_imports  # noqa: F401 - its memory counts
from worker.memory import memory_budget, tune_garbage_collector, tune_malloc

_LEASE = timedelta(minutes=2)
_ASSET = "benchmark"


def _now() -> datetime:
    return datetime.now(UTC)


def _address(url: str) -> FixedAddress:
    secret = SecretUrl(url)
    return FixedAddress(Address(secret, handed_out=frozenset({secret.origin})))


def _items(task: dict[str, Any], http: HttpClient, memory: MemoryBudget) -> Iterator[Item]:
    base, token = task["signed_url"], task["token"]
    if task["form"] == "zip":
        source = HttpSource(http, _address(f"{base}/vod.zip?{token}"))
        info, reader = source.open(4096)
        reader.close()
        yield from ZipContents(source, info, name="vod.zip", version="1", memory=memory).items()
    elif "master.m3u8" in task["paths"]:
        yield from HlsContents(http, _address(f"{base}/master.m3u8?{token}")).items()
    else:
        for path in task["paths"]:
            yield Item(path, "video/mp4", source=HttpSource(http, _address(f"{base}/{path}?{token}")))


def main() -> None:
    task = json.load(sys.stdin)
    ca_file = Path(task["ca_file"]) if task["ca_file"] else None
    http = HttpClient(AddressPolicy(allow_private=True), ca_file=ca_file)
    store = open_destination(task["destination"])
    store.stat(object_key("none"))  # makes the client: half a second, once in a worker's life
    tune_garbage_collector()
    tune_malloc()
    ready()
    ledger = MemoryLedger(_now)
    ledger.discover([Seen(_ASSET, "room-vod", _now() + timedelta(days=1), AssetState.DISCOVERED)])
    lease = ledger.lease(_ASSET, "benchmark", _LEASE)
    assert lease is not None
    heartbeat = Heartbeat(
        ledger, lease, _LEASE, renew_every=timedelta(seconds=30), asset_type="room-vod", bytes_total=None
    )
    memory = memory_budget(task["process_bytes"])
    engine = TransferEngine(
        memory,
        connections=task["connections"],
        uploads=task["connections"],  # as the product's wiring has it
        journal=LedgerUploadJournal(ledger, lease),
        on_bytes=heartbeat.moved,
        should_stop=heartbeat.check,
    )
    with heartbeat, cancellation.watched(heartbeat.check), engine:
        copier = Copier(
            ledger,
            lease,
            engine,
            heartbeat,
            version="1",
            exact=False,
            folder="job",
            stores=[store],
            manifests={},
        )
        copied = copier.copy(_items(task, http, memory))
    if copied.failed:
        raise SystemExit(str(copied.failed))
    http.close()
    store.close()


if __name__ == "__main__":
    main()
