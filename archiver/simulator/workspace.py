"""The simulated workspace: its assets, clock, faults and signed URLs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

from archiver.simulator.clock import Clock
from archiver.simulator.config import SimulatorConfig
from archiver.simulator.endpoints.request_log import RequestLog
from archiver.simulator.faults.plan import Faults
from archiver.simulator.recordings.assets import Asset, Delivery, Identity, Thumbnail
from archiver.simulator.recordings.catalogue import Catalogue, Found
from archiver.simulator.recordings.kinds import Options, make
from archiver.simulator.recordings.sets import assets_of, series_of
from archiver.simulator.signing import Signer
from archiver.simulator.state import Addition, StateFile

_THUMBNAIL_SECONDS = 3 * 24 * 3600


@dataclass(frozen=True)
class Origins:
    """Scheme, host and port of each, without a slash at the end."""

    api: str
    storage: str
    cdn: str


class Workspace:
    """Set `origins` once the ports are known."""

    origins: Origins

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self._state_file = StateFile(config.state_dir)
        self._state = self._state_file.load()
        self.clock = Clock(shift=timedelta(seconds=self._state.shift_seconds))
        self.signer = Signer(bytes.fromhex(self._state.signing_key_hex), config.flavour)
        self.faults = Faults(config.chaos_seed, config.chaos_rate)
        self.log = RequestLog()
        self.catalogue = Catalogue(
            self.clock,
            config.retention,
            config.order,
            lists_expired=config.lists_expired,
            series=series_of(config, self._state.born_seconds),
        )
        for asset in assets_of(config, self._state.born_seconds):
            self.catalogue.add(asset)
        for addition in self._state.additions:
            self.catalogue.add(_made(addition))

    def add(self, kind: str, age_seconds: float, options: Mapping[str, Any], row: Mapping[str, Any]) -> Asset:
        """Add an asset that survives restarts. Raises ValueError for invalid options."""
        addition = Addition(
            name=f"added-{len(self._state.additions)}-{uuid.uuid4().hex[:8]}",
            kind=kind,
            created_seconds=time.time() - age_seconds,
            options=dict(options),
            row=dict(row),
        )
        asset = _made(addition)
        self.catalogue.add(asset)
        self._state.additions.append(addition)
        self._state_file.save(self._state)
        return asset

    def shift_clock(self, shift: timedelta) -> None:
        """Set how far the storage's clock is ahead. Files that retention deleted stay deleted."""
        self.clock.shift = shift
        self._state.shift_seconds = shift.total_seconds()
        self._state_file.save(self._state)
        self.catalogue.delete_expired()

    def find(self, path: str) -> Found | None:
        """Return the file at `/<bucket>/<key>`; None if it does not exist, or no longer."""
        bucket, _, key = path.removeprefix("/").partition("/")
        return self.catalogue.find(bucket, key)

    def url_of(self, asset: Asset, duration_seconds: int) -> str:
        """Return the URL for `presigned-url`. The asset must have a file."""
        key, hop = asset.main_key or "", "/redirect" if asset.redirect else ""
        if asset.delivery is Delivery.SIGNED:
            return self._storage_url(f"{hop}/{asset.bucket}/{key}", duration_seconds)
        url = f"{self.origins.cdn}{hop}/{quote(key)}"
        if asset.delivery is Delivery.CDN_RELATIVE:
            return url
        resource = f"{self.origins.cdn}/{asset.main_folder}*"
        if asset.delivery is Delivery.CDN_COOKIES:
            resource = f"{self.origins.cdn}/{key}"
        values = self.signer.sign_folder(resource, self.clock.storage_seconds(), duration_seconds)
        return f"{url}?{urlencode(values)}"

    def redirect_target(self, asset: Asset) -> str:
        """Return the target of the asset's `/redirect`; at the CDN, without the query."""
        key = asset.main_key or ""
        behind_cdn = asset.delivery is not Delivery.SIGNED
        if asset.redirect not in ("here", "elsewhere"):
            return asset.redirect or ""
        if behind_cdn == (asset.redirect == "here"):
            return f"{self.origins.cdn}/{quote(key)}"
        return self._storage_url(f"/{asset.bucket}/{key}", _THUMBNAIL_SECONDS)

    def thumbnail_url(self, asset: Asset, thumbnail: Thumbnail) -> str:
        """Return the signed URL of a thumbnail, for the webhook."""
        return self._storage_url(f"/{asset.bucket}/{asset.folder}/{thumbnail.name}", _THUMBNAIL_SECONDS)

    def request_id(self) -> str:
        return uuid.uuid4().hex[:16].upper()

    def _storage_url(self, path: str, duration_seconds: int) -> str:
        query = self.signer.sign_path("GET", path, self.clock.storage_seconds(), duration_seconds)
        return f"{self.origins.storage}{quote(path)}?{query}"


def _made(addition: Addition) -> Asset:
    identity = Identity(addition.name, addition.name, addition.name, addition.created_seconds)
    return make(addition.kind, identity, Options.parse(addition.options), addition.row)
