"""Configuration of a simulator."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

# Valid only for a simulator; real ones come from the 100ms dashboard.
FAKE_ACCESS_KEY = "simulated-access-key"
FAKE_SECRET = "simulated-app-secret-of-nobody-at-all"  # noqa: S105 (32 bytes or more, as HS256 wants)
# Customers' own buckets: `external` when its path is among ARCHIVER_OWN_PATHS; and one that nobody declared.
OWN_BUCKET = "acme-own-recordings"
UNDECLARED_BUCKET = "acme-undeclared-recordings"


class LastPage(StrEnum):
    """How the last page of the listing looks; all are documented."""

    SHORT = "short"  # fewer rows than `limit`, `last` set as usual
    LAST_NULL = "last-null"
    LAST_EMPTY = "last-empty"
    DATA_NULL = "data-null"  # one more page with `data` null


class Order(StrEnum):
    """The order of the listing, which 100ms does not document."""

    NEWEST_FIRST = "newest-first"
    OLDEST_FIRST = "oldest-first"
    SHUFFLED = "shuffled"


class Flavour(StrEnum):
    """Whose storage it looks like: the names in signed URLs, and the checksum headers."""

    S3 = "s3"  # MD5 ETags, no other checksum: a pre-signed URL cannot ask for one
    GCS = "gcs"  # x-goog-hash


class SessionPeers(StrEnum):
    """How a session names its peers; older answers of 100ms have an object."""

    ARRAY = "array"
    OBJECT = "object"
    NONE = "none"


@dataclass(frozen=True)
class SimulatorConfig:
    set_name: str = "demo"
    state_dir: Path | None = None  # None: nothing survives a restart
    host: str = "127.0.0.1"
    public_host: str | None = None  # the name in URLs; None: `host`
    port: int = 0  # 0: any free one
    storage_port: int = 0
    cdn_port: int = 0
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    access_key: str = FAKE_ACCESS_KEY
    secret: str = field(default=FAKE_SECRET, repr=False)

    last_page: LastPage = LastPage.SHORT
    order: Order = Order.NEWEST_FIRST
    flavour: Flavour = Flavour.S3
    retention: timedelta = timedelta(days=15)
    lists_expired: bool = True  # whether an asset stays in the listing when its files are gone

    count: int = 100_000  # of the set `many`
    size_bytes: int = 1 << 30  # of the set `large`
    layers: int = 4  # of the sets `tree` and `zip-tree`, like the two below
    segments: int = 1500
    segment_bytes: int = 250 * 1024

    session_peers: SessionPeers = SessionPeers.ARRAY

    chaos_seed: int | None = None
    chaos_rate: float = 0.0  # the share of requests with a fault

    webhook_url: str | None = None
    webhook_header: str = "x-webhook-secret"
    webhook_secret: str = field(default="simulated-webhook-secret", repr=False)
    webhook_retries: int = 3

    access_log: bool = False
    until_stdin_closes: bool = False
