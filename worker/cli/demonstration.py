"""`archiver demo`: archive simulated assets with real processes, and print a table at the end."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archiver.core.health import Summary
from archiver.core.records import keys
from archiver.core.records.manifest import read_manifest
from archiver.ledger.errors import LedgerError
from archiver.ledger.models import OPEN_STATES, AssetState, Row
from worker.bootstrap import build_services
from worker.embedded.errors import AlreadyRunning
from worker.embedded.flower import FlowerOptions
from worker.embedded.simulated import SIMULATED_ACCESS_KEY, SIMULATED_SECRET, simulator_of
from worker.embedded.supervisor import Supervisor
from worker.embedded.valkey import EmbeddedValkey
from worker.services import AppServices
from worker.settings import Settings
from worker.views.rows import state_style, states_table
from worker.views.status import progress_table
from worker.views.text import size

OWN_PATH = (
    "s3://acme-own-recordings"  # already holds one simulated asset, as if it were the team's own bucket
)

# Not the defaults of ARCHIVER_DESTINATIONS and ARCHIVER_STATE_DIR: kept apart from real recordings.
DESTINATION = Path("archive-demo")
STATE = Path(".archiver-demo")
LIMIT = timedelta(minutes=5)
"""The demo takes about 15 s."""
REFRESH = timedelta(milliseconds=250)


def run(console: Console, *, keep: bool, as_json: bool) -> bool:
    """Run the demo; True when every asset ended in the state that the simulator expects. `keep`: keep running until
    Ctrl-C. Raises SupervisorError when a process does not start."""
    settings = Settings(
        _env_file=None,
        hms_access_key=SIMULATED_ACCESS_KEY,
        hms_secret=SIMULATED_SECRET,
        destinations=(str(DESTINATION.resolve()),),
        state_dir=STATE,
        allow_private_sources=True,
        redis_url=None,
    )
    _clear_state()
    companions, environment = simulator_of(settings)
    environment |= {
        "ARCHIVER_SWEEP_SECONDS": "5",
        "ARCHIVER_DISPATCH_SECONDS": "1",
        "ARCHIVER_RETRY_BASE_SECONDS": "2",
        "ARCHIVER_OWN_PATHS": OWN_PATH,
    }
    for name in ("ARCHIVER_TYPES", "ARCHIVER_ROOMS", "ARCHIVER_KEY_TEMPLATE", "ARCHIVER_VOD_ZIP"):
        environment.pop(name, None)
    status = Console(stderr=True)
    with Supervisor(
        settings.state_dir, environment=environment, flower=FlowerOptions(), companions=companions
    ) as supervisor:
        status.print("Starting Valkey, a simulated 100ms, two workers, beat and Flower ...", style="dim")
        supervisor.start()
        services = build_services(settings, redis_url=supervisor.redis_url, send=lambda _row, _urgent: None)
        try:
            truth = _truth(companions[0].ready_url)
            if as_json:
                _wait(services, len(truth), lambda _view: None)
            else:
                with Live(console=console, auto_refresh=False, transient=True) as live:
                    _wait(services, len(truth), lambda view: live.update(view, refresh=True))
            rows = {row.asset_id: row for row in services.ledger.rows()}
            good = _report(console, services, truth, rows, as_json=as_json)
        finally:
            services.close()
        if keep:
            console.print(f"\nFlower: {supervisor.flower_url}   Ctrl-C stops everything.", highlight=False)
            supervisor.wait()
    return good


def _clear_state() -> None:
    """Delete the state of an earlier demo, but not its archive. Raises AlreadyRunning."""
    if EmbeddedValkey(STATE).answers():
        raise AlreadyRunning("Another `archiver demo` runs in this directory. Stop it first (Ctrl-C).")
    shutil.rmtree(STATE, ignore_errors=True)


def _truth(control_url: str) -> dict[str, dict[str, Any]]:
    """By asset id: the expected outcome of each simulated asset."""
    with httpx.Client(timeout=30, trust_env=False) as client:
        answer = client.get(f"{control_url}/assets")
        answer.raise_for_status()
        return {asset["id"]: asset for asset in answer.json()["assets"]}


def _wait(services: AppServices, expected: int, draw: Callable[[RenderableType], None]) -> None:
    """Wait until all `expected` assets have ended, or LIMIT has passed."""
    started = time.monotonic()
    moved = _Rate()
    while time.monotonic() - started < LIMIT.total_seconds():
        try:
            summary = services.watcher.summary()
        except LedgerError:
            time.sleep(REFRESH.total_seconds())
            continue
        draw(_live_view(services, summary, expected, moved))
        still_open = sum(summary.counts.states.get(state, 0) for state in OPEN_STATES)
        if summary.counts.seen >= expected and not still_open:
            return
        time.sleep(REFRESH.total_seconds())


class _Rate:
    """Bytes a second over the last few seconds."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    def of(self, total_bytes: int) -> float:
        now = time.monotonic()
        self._samples = [(at, size) for at, size in self._samples if now - at < 3][-50:]
        self._samples.append((now, total_bytes))
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        return max(last - first, 0) / (last_at - first_at) if last_at > first_at else 0.0


def _live_view(services: AppServices, summary: Summary, expected: int, rate: _Rate) -> RenderableType:
    counts = summary.counts
    ended = counts.seen - sum(counts.states.get(state, 0) for state in OPEN_STATES)
    copied = sum(row.stored_bytes for row in services.ledger.rows([AssetState.ARCHIVED]))
    copied += sum(item.bytes_done for item in summary.running)
    bar = Table.grid(padding=(0, 2, 0, 0))
    bar.add_row(
        ProgressBar(total=expected, completed=ended, width=40),
        f"{ended} of {expected} assets",
        size(copied),
        f"{size(rate.of(copied))}/s",
    )
    parts: list[RenderableType] = [bar, states_table(counts.states, counts.seen)]
    if summary.running:
        parts.append(progress_table(summary.running))
    return Group(*parts)


def _report(
    console: Console,
    services: AppServices,
    truth: dict[str, dict[str, Any]],
    rows: dict[str, Row],
    *,
    as_json: bool,
) -> bool:
    """Print the outcome of each asset; True when all are as expected."""
    store = services.destinations[0]
    listed, good = [], True
    for asset_id, expected in sorted(truth.items(), key=lambda entry: (entry[1]["type"], entry[0])):
        row = rows.get(asset_id)
        state = str(row.state) if row else "never seen"
        as_it_should = state == expected["expected_state"]
        good = good and as_it_should
        manifest = read_manifest(store, keys.manifest_key(asset_id, row.created_at)) if row else None
        listed.append(
            {
                "asset_id": asset_id,
                "type": expected["type"],
                "state": state,
                "as_it_should": as_it_should,
                "objects": row.stored_objects if row else 0,
                "bytes": row.stored_bytes if row else 0,
                "folder": str(DESTINATION / manifest.folder) if manifest else None,
                "open": _to_open(manifest.folder, [item.path for item in manifest.objects])
                if manifest
                else None,
                "note": "; ".join(row.warnings) or row.reason or "" if row else "",
            }
        )
    if as_json:
        console.print_json(json.dumps({"assets": listed, "as_it_should": good}))
        return good
    console.print(_table(listed))
    for item in listed:
        if not item["as_it_should"]:
            expected_state = truth[item["asset_id"]]["expected_state"]
            console.print(
                Text(f"{item['asset_id']} should be {expected_state}. {item['note']}", style="bold red")
            )
        elif item["note"]:
            console.print(Text(f"{item['asset_id']}: {item['note']}", style="dim"))
    console.print()
    console.print(f"Everything is in {DESTINATION}/ :", highlight=False)
    console.print(f"  {DESTINATION}/recordings/<room>/<session>/<type>/<asset>/   the files", highlight=False)
    console.print(
        f"  {DESTINATION}/manifests/<yyyy>/<mm>/<dd>/<asset>.json       sizes and checksums", highlight=False
    )
    to_open = [item["open"] for item in listed if item["open"]]
    if to_open:
        console.print("Open one, with a player such as VLC or ffplay:", highlight=False)
        for path in sorted(to_open, key=_most_telling)[:3]:
            console.print(f"  {path}", highlight=False, soft_wrap=True)
    verdict = "Every asset ended as it should." if good else "Some assets did not end as they should."
    console.print(Text(verdict, style="bold green" if good else "bold red"))
    if not good:
        console.print(f"The logs are in {STATE / 'logs'}/.", highlight=False)
    return good


def _table(listed: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("type", "asset", "state"):
        table.add_column(column, no_wrap=True)
    for column in ("objects", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    for item in listed:
        table.add_row(
            item["type"],
            item["asset_id"],
            Text(item["state"], style=state_style(item["state"])),
            f"{item['objects']:,}" if item["objects"] else "",
            size(item["bytes"]) if item["bytes"] else "",
        )
    return table


def _to_open(folder: str, paths: Sequence[str]) -> str | None:
    """The file of an asset that a person would open first."""
    for wanted in ("master.m3u8", ".m3u8", ".mp4", ".webm"):
        if match := min((path for path in paths if path.endswith(wanted)), key=len, default=None):
            return str(DESTINATION / folder / match)
    return None


def _most_telling(path: str) -> tuple[int, str]:
    return next(
        (rank for rank, end in enumerate((".mp4", "master.m3u8", ".webm")) if path.endswith(end)), 9
    ), path
