"""Named initial sets of assets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver.simulator.config import SimulatorConfig
from archiver.simulator.recordings.assets import (
    HMS_BUCKET,
    HMS_PREFIX,
    Asset,
    Form,
    Identity,
    row_of,
    storage_path,
)
from archiver.simulator.recordings.catalogue import Series
from archiver.simulator.recordings.content import MP4_HEAD, Synthetic
from archiver.simulator.recordings.kinds import KINDS, Options, make

_HOUR = 3600
_EVERYTHING = (
    *("composite", "composite-legacy", "composite-layer-1", "composite-layer-2", "composite-layer-3"),
    *("vod-ts", "vod-fmp4", "vod-cookies", "vod-redirect", "vod-zip-stored", "vod-zip-deflated"),
    *("chat", "transcript-txt", "transcript-srt", "transcript-json", "summary"),
    *("track-audio", "track-video", "stream", "external", "unknown-type", "failed"),
)

SETS: Mapping[str, tuple[str, ...]] = {
    "demo": _EVERYTHING,
    "minimal": ("composite", "chat"),
    "vod": ("vod-ts", "vod-fmp4", "vod-cookies", "vod-redirect", "vod-zip-stored", "vod-zip-deflated"),
    "needs-source-access": ("composite", "vod-source-access"),
    "hostile": ("composite", *(kind for kind in KINDS if kind.startswith("hostile-"))),
    "large": ("large",),
    "tree": ("tree",),
    "zip-tree": ("zip-tree",),
    "many": (),  # a series, see below
    "empty": (),
}


def assets_of(config: SimulatorConfig, born_seconds: float) -> list[Asset]:
    """Make the set's assets: one hour old at `born_seconds`, two hours, and so on."""
    made = []
    for number, name in enumerate(SETS[config.set_name], start=1):
        kind, layer = (name[:-2], int(name[-1])) if name.startswith("composite-layer-") else (name, 1)
        options = Options(
            size_bytes=config.size_bytes,
            layer=layer,
            layers=config.layers,
            segments=config.segments,
            segment_bytes=config.segment_bytes,
        )
        # Layers are outputs of one recording and share its time and folder.
        hours = number - layer + 1 if kind == "composite-layer" else number
        session = "town-hall" if hours % 2 else "weekly"
        made.append(make(kind, Identity(name, session, session, born_seconds - hours * _HOUR), options))
    return made


def series_of(config: SimulatorConfig, born_seconds: float) -> Series | None:
    """Make the `config.count` small files of the set `many`."""
    return ManyAssets(config.count, born_seconds) if config.set_name == "many" else None


@dataclass(frozen=True)
class ManyAssets:
    """Composite recordings of 4 KiB, one for every second before `born_seconds`, a thousand per room."""

    count: int
    born_seconds: float
    size_bytes: int = 4096
    per_room: int = field(default=1000, repr=False)

    def __len__(self) -> int:
        return self.count

    def at(self, number: int) -> Asset:
        asset_id = f"5e71e5{number:018x}"
        identity = Identity(
            f"many-{number}",
            f"many-{number // self.per_room}",
            f"many-{number // 10}",
            self.born_seconds - number - 1,
        )
        folder = f"{HMS_PREFIX}/beam/{identity.room_id}/{identity.date}"
        name = f"Rec-{asset_id}-{identity.epoch}.mp4"
        files = {name: Synthetic(self.size_bytes, asset_id, head=MP4_HEAD)}
        row = row_of(
            identity,
            id=asset_id,
            type="room-composite",
            path=storage_path(HMS_BUCKET, f"{folder}/{name}"),
            size=self.size_bytes,
            duration=1,
            metadata={"resolution": {"width": 426, "height": 240}, "layer": "0"},
        )
        return Asset("many", identity, row, Form.FILE, folder, files, name, files)

    def number_of(self, asset_id: str) -> int | None:
        found = re.fullmatch(r"5e71e5([0-9a-f]{18})", asset_id)
        number = int(found[1], 16) if found else self.count
        return number if number < self.count else None

    def number_of_key(self, key: str) -> int | None:
        found = re.search(r"/Rec-(5e71e5[0-9a-f]{18})-\d+\.mp4$", key)
        return self.number_of(found[1]) if found else None
