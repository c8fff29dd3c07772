"""Every setting: its name, unit, default and the reason for the default. Read once, by the wiring.

From the environment and from `.env` (the environment wins). `.env.example` says the same as the descriptions here;
a test compares them.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    ByteSize,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from archiver.core.records.keys import DEFAULT_TEMPLATE, check_template
from archiver.hms.base import DEFAULT_API_URL
from archiver.hms.models import AssetType
from archiver.http import trust
from archiver.retry_policy import ATTEMPT
from archiver.transfer.part_sizes import PART_BYTES
from storage_backends.destination_url import is_plain_path, parse_destination
from storage_backends.errors import BadDestinationUrl
from worker.errors import SettingsError

PREFIX = "ARCHIVER_"
_OUR_NAMES = re.compile(r"(ARCHIVER|HMS)_", re.IGNORECASE)
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
"""What Kubernetes puts into each container for each service of its namespace, beside `<service>_PORT`."""
_SERVICE_PORT = re.compile(r"(ARCHIVER|HMS|FLOWER)_(.+_)?PORT")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+:\d+", re.IGNORECASE)
"""A service that is called `archiver-flower` or `flower` sets ARCHIVER_FLOWER_PORT or FLOWER_PORT to such a value."""
_TYPO = 0.75  # difflib's likeness, without the prefix, from which a name is taken for one of ours, misspelt
_PREFIX_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s?#@]+", re.IGNORECASE)
_PART = f"{PART_BYTES // 2**20} MiB"

Names = Annotated[frozenset[str] | None, NoDecode]
Listed = Annotated[tuple[str, ...], NoDecode]


class VodZip(StrEnum):
    """What becomes of a VOD that 100ms delivers as a zip."""

    UNPACK = "unpack"
    KEEP = "keep"
    BOTH = "both"


class Settings(BaseSettings):
    """Use `load_settings` in the product. In tests: `Settings(_env_file=None, destinations=..., ...)`, by field name.

    Nothing need be given: without credentials the tool can still verify what is archived.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8-sig",  # with a byte order mark plain UTF-8 would miss the first name
        env_ignore_empty=True,  # `HMS_SECRET=` is a form not filled in, not an empty secret
        extra="ignore",  # `.env` also holds the cloud SDKs' variables; misspelt ones of ours: `load_settings`
        populate_by_name=True,
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    # -- 100ms ---------------------------------------------------------------------------------------------
    hms_access_key: str | None = Field(
        default=None,
        validation_alias="HMS_ACCESS_KEY",
        repr=False,
        description="The app access key of the 100ms workspace (dashboard, Developer section). No default.",
    )
    hms_secret: SecretStr | None = Field(
        default=None,
        validation_alias="HMS_SECRET",
        description="The app secret that belongs to HMS_ACCESS_KEY; signs management tokens of 24 hours, renewed by "
        "themselves. No default.",
    )
    hms_management_token: SecretStr | None = Field(
        default=None,
        validation_alias="HMS_MANAGEMENT_TOKEN",
        description="A ready-made management token instead of the two above. It cannot be renewed, so it suits a "
        "trial only. No default.",
    )
    hms_api_url: str = Field(
        default=DEFAULT_API_URL,
        validation_alias="HMS_API_URL",
        description="The 100ms API, with its /v2. https, except on loopback or with ARCHIVER_ALLOW_PRIVATE_SOURCES. "
        "Default https://api.100ms.live/v2.",
    )

    # -- what is archived, and where to --------------------------------------------------------------------
    destinations: Listed = Field(
        default=("./archive",),
        validate_default=True,
        description="Where to: one or more URLs with commas between them, such as "
        "s3://bucket/prefix?endpoint_url=...&region=..., gs://bucket/prefix, file:///srv/archive, "
        "./archive. An asset is archived when it is whole at each. A comma inside a URL is written %2C. "
        "Credentials are not written here: the cloud SDKs find them their own way (AWS_*, "
        "GOOGLE_APPLICATION_CREDENTIALS, profiles, instance roles). Default ./archive, for a first try.",
    )
    types: Names = Field(
        default=None,
        description="Only assets of these types, with commas between them, such as room-composite,room-vod; the "
        "others end as `skipped`. Default: all types, also those 100ms adds later.",
    )
    rooms: Names = Field(
        default=None,
        description="Only assets of these room ids, with commas between them; the others end as `skipped`. Default: "
        "all rooms.",
    )
    own_paths: Listed = Field(
        default=(),
        description="Path prefixes that are your own bucket, with commas between them, such as s3://my-bucket/hms: "
        "100ms uploads there directly, such assets end as `external` and are not copied. Default: none.",
    )
    source_access: Listed = Field(
        default=(),
        description="Buckets that VODs may be read from with our own credentials, with commas between them, such as "
        "s3://customer-bucket/prefix?endpoint_url=...: for a VOD of which 100ms signs the playlist alone. "
        "Never written to; no other bucket is read then. Default: none given, the bucket that such an "
        "asset's path names is tried.",
    )
    key_template: str = Field(
        default=DEFAULT_TEMPLATE,
        description="The folder of an asset at a destination. Fields, each a segment of its own: {room_id}, "
        "{session_id}, {type}, {asset_id} (required), {job_id}, {yyyy}, {mm}, {dd}. Changing it later "
        "moves nothing that is archived. Default recordings/{room_id}/{session_id}/{type}/{asset_id}.",
    )
    vod_zip: VodZip = Field(
        default=VodZip.UNPACK,
        description="What to store of a VOD that comes as a zip: `unpack` (its files, so that it plays), `keep` (the "
        "zip), `both`. Default unpack.",
    )
    retention_days: float = Field(
        default=15,
        gt=0,
        description="Days from an asset's creation until 100ms deletes it; the deadline of every copy. Default 15: "
        "what 100ms keeps on its own storage.",
    )
    at_risk_days: float = Field(
        default=3,
        gt=0,
        description="Days before its deadline from which an asset that is not archived counts as at risk and goes "
        "first, and from which one that 100ms has not finished is stored as it is, with doubts. Default 3: a weekend.",
    )

    # -- where the tool keeps what it needs itself ---------------------------------------------------------
    redis_url: SecretStr | None = Field(
        default=None,
        description="Broker and ledger: redis://[:password@]host:6379/0, or rediss:// for TLS. Redis 7 or Valkey, "
        "append-only, maxmemory-policy noeviction. Default: unset, an embedded Valkey in "
        "ARCHIVER_STATE_DIR.",
    )
    state_dir: Path = Field(
        default=Path(".archiver"),
        validate_default=True,
        description="Directory for the embedded Valkey's data, locks and logs. Not needed again when it is lost: the "
        "API and the destinations rebuild it. Default ./.archiver.",
    )

    # -- whom it trusts ------------------------------------------------------------------------------------
    ca_file: Path | None = Field(
        default=None,
        description="A PEM file of certificate authorities to trust besides the system's, for everything: the 100ms "
        "API, sources, destinations, Redis. For a company's own authority, a proxy that inspects TLS, or a "
        "self-signed certificate. Default: what SSL_CERT_FILE names, if it is set.",
    )

    # -- the rhythm ----------------------------------------------------------------------------------------
    sweep_seconds: int = Field(
        default=300,
        ge=1,
        description="Seconds between two walks over the API's list. Default 300: a new asset waits 5 minutes of its "
        "15 days, and 10,000 assets cost 100 requests each time.",
    )
    dispatch_seconds: int = Field(
        default=15,
        ge=1,
        description="Seconds between two looks at what is due. Default 15: how long a retry that is due may wait; one "
        "look costs one round trip to the ledger.",
    )
    dispatch_window: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Assets queued at the broker at once, the most urgent; the ledger holds the rest. Default 200: a "
        "fleet stays busy from one dispatch to the next, and a new urgent asset waits behind few.",
    )
    lease_seconds: int = Field(
        default=120,
        ge=3,
        description="Seconds for which a worker holds an asset without renewing its lease. Default 120: so long a "
        "killed worker's asset lies still, and so long the ledger may be away without stopping a copy.",
    )
    mismatch_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="How many attempts in a row, each on a fresh URL, must find the same doubts (a missing segment, "
        "another kind of file than expected) before the asset is stored with them and quarantined. Default 3: such "
        "faults are mostly a proxy's and pass.",
    )
    retry_base_seconds: int = Field(
        default=round(ATTEMPT.base.total_seconds()),
        ge=1,
        description="Seconds before the second attempt at an asset, about; the wait doubles with each. Default 30: a "
        "restart at the other side is over by then.",
    )
    retry_max_seconds: int = Field(
        default=round(ATTEMPT.cap.total_seconds()),
        ge=1,
        description="The longest wait between two attempts, in seconds, and never past the deadline. Default 3600: "
        "what is mended is noticed within the hour.",
    )

    # -- checking what is archived -------------------------------------------------------------------------
    scrub_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Days within which each archived copy is checked again by the daily scrub, in part by the "
        "store's own checksums. Default 30: rot is found while most backups and object versions still "
        "reach back as far.",
    )
    scrub_full_days: int = Field(
        default=365,
        ge=1,
        le=36500,
        description="Days within which every byte of each archived copy is read back again, also where the store "
        "keeps checksums of its own; a new copy is read once before its source expires. Default 365: "
        "what a store says of itself is believed for a year.",
    )
    scrub_bytes_a_day: ByteSize | None = Field(
        default=None,
        ge=2**20,
        validation_alias="ARCHIVER_SCRUB_BYTES",
        description="The most that the scrub reads back from each destination in a day, on average, with a unit "
        "(50GiB) or in bytes. `archiver status` says when the promise of ARCHIVER_SCRUB_DAYS cannot be "
        "kept with it. Default: no limit, what is due.",
    )

    # -- moving bytes --------------------------------------------------------------------------------------
    worker_concurrency: int = Field(
        default=2,
        ge=1,
        le=256,
        description="Assets archived at once by one worker, each in a process of its own. Default 2: one large file "
        "does not hold up the small ones, on a machine with 2 cores.",
    )
    transfer_memory_bytes: ByteSize = Field(
        default=ByteSize(256 * 2**20),
        ge=32 * 2**20,
        validation_alias="ARCHIVER_TRANSFER_MEMORY",
        description="Memory that one worker process may use while it moves bytes, with a unit (256MiB) or in bytes; "
        "ARCHIVER_WORKER_CONCURRENCY times this in all. Default 256MiB: 130 MiB for the process itself, and 25 parts "
        f"of {_PART}; up to a quarter of these bytes is what a zip is read ahead into. Connections that stream, or "
        "read an object back, hold up to 1 MiB each, within what the process has for itself; scrub and verify read "
        "8 MiB at a time.",
    )
    max_unsized_bytes: ByteSize = Field(
        default=ByteSize(2**40),
        ge=2**20,
        validation_alias="ARCHIVER_MAX_UNSIZED",
        description="The most that is read of a file whose server does not say how long it is, or that unpacks while "
        "it is read, with a unit or in bytes; what goes on beyond is no recording. Default 1TiB: 12 hours in the "
        "highest quality are about 50 GiB.",
    )
    connections: int = Field(
        default=32,
        ge=1,
        le=256,
        description="Connections to the source, and to each destination, for one asset, at most. Default 32: a tree of "
        "small segments wants as many, and a large file uses what its parts of the memory allow "
        f"(25 of {_PART}).",
    )
    part_bytes: ByteSize = Field(
        default=ByteSize(PART_BYTES),
        ge=5 * 2**20,  # the least S3 takes
        le=512 * 2**20,
        description="Size of one part of a large object, with a unit (5MiB) or in bytes; a multiple of 256KiB, at "
        "least 5MiB. Very large objects get larger parts by themselves. "
        f"Default {PART_BYTES // 2**20}MiB: more of them fit into the memory, and each keeps a connection busy.",
    )
    source_timeout_seconds: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="Seconds with less than 1 KiB each after which a connection to the source is given up and tried "
        "again; whole seconds. Default 30.",
    )
    presign_seconds: int = Field(
        default=3600,
        ge=60,
        le=7 * 86400,  # the most S3 signs for
        description="Seconds for which the API is asked to sign a URL; it is renewed when it ends sooner or later. "
        "Default 3600, as 100ms's own SDK asks.",
    )
    allow_private_sources: bool = Field(
        default=False,
        description="Whether URLs that the API itself hands out may be http, or lead to loopback and private "
        "addresses: for the simulator and for tests. Redirects and playlists to another private host stay "
        "forbidden. Default false.",
    )

    # -- being looked at -----------------------------------------------------------------------------------
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        description="The least severe events to log: DEBUG, INFO, WARNING or ERROR. Default INFO: a line for each "
        "asset.",
    )
    log_format: Literal["console", "json"] = Field(
        default="console",
        description="`console` for eyes, `json` for a log store: one object a line. Default console.",
    )
    flower_address: str = Field(
        default="127.0.0.1",
        description="The address Flower listens on. Default 127.0.0.1: only this machine. Elsewhere it always has a "
        "password.",
    )
    flower_port: int = Field(
        default=5555,
        ge=0,
        le=65535,
        description="The port Flower listens on; 0 for any free one. Default 5555, Flower's own.",
    )
    flower_basic_auth: SecretStr | None = Field(
        default=None,
        description="user:password for Flower. Default: none on loopback; elsewhere one is made at the start, and "
        "where it is kept is printed.",
    )

    # -- what others ask -----------------------------------------------------------------------------------
    @property
    def has_credentials(self) -> bool:
        """Whether the 100ms API can be asked at all."""
        return self.hms_secret is not None or self.hms_management_token is not None

    @property
    def flower_on_loopback(self) -> bool:
        return _is_loopback(self.flower_address)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks odd and is not refused, a sentence each, for the log and for `doctor`."""
        found = list(self._warnings)
        unknown = sorted((self.types or frozenset()) - set(AssetType))
        if unknown:
            found.append(
                f"ARCHIVER_TYPES names {', '.join(map(repr, unknown))}, which 100ms does not document (it documents "
                f"{', '.join(AssetType)}); every other type is skipped"
            )
        if self.hms_secret is not None and self.hms_management_token is not None:
            found.append(
                "HMS_MANAGEMENT_TOKEN is not used, because HMS_ACCESS_KEY and HMS_SECRET are given too"
            )
        if not urlsplit(self.hms_api_url).path.strip("/"):
            found.append(f"HMS_API_URL has no path; 100ms's API is under /v2: {self.hms_api_url}/v2")
        if self.at_risk_days >= self.retention_days:
            found.append(
                "ARCHIVER_AT_RISK_DAYS is not below ARCHIVER_RETENTION_DAYS: every asset counts as at risk"
            )
        return tuple(found)

    @property
    def retention(self) -> timedelta:
        return timedelta(days=self.retention_days)

    @property
    def at_risk(self) -> timedelta:
        return timedelta(days=self.at_risk_days)

    @property
    def sweep_every(self) -> timedelta:
        return timedelta(seconds=self.sweep_seconds)

    @property
    def dispatch_every(self) -> timedelta:
        return timedelta(seconds=self.dispatch_seconds)

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def lease_renew(self) -> timedelta:
        """How often a lease is renewed: two renewals in a row may fail before it ends."""
        return self.lease / 4

    @property
    def retry_base(self) -> timedelta:
        return timedelta(seconds=self.retry_base_seconds)

    @property
    def retry_max(self) -> timedelta:
        return timedelta(seconds=self.retry_max_seconds)

    @property
    def presign(self) -> timedelta:
        return timedelta(seconds=self.presign_seconds)

    @property
    def source_timeout(self) -> timedelta:
        return timedelta(seconds=self.source_timeout_seconds)

    # -- one setting ---------------------------------------------------------------------------------------
    @field_validator("*", mode="before")
    @classmethod
    def _stripped(cls, value: object) -> object:
        return (
            value.strip() if isinstance(value, str) else value
        )  # a line break comes along when a key is pasted

    @field_validator("types", "rooms", "destinations", "own_paths", "source_access", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(item for item in (item.strip() for item in value.split(",")) if item)

    @field_validator("types", "rooms", mode="after")
    @classmethod
    def _nothing_named(cls, value: frozenset[str] | None) -> frozenset[str] | None:
        return value or None  # `,` filters nothing, rather than everything

    @field_validator("destinations", mode="after")
    @classmethod
    def _destinations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("names no destination")
        names = []
        for text in value:
            try:
                names.append(parse_destination(text).name)
            except BadDestinationUrl as error:
                raise ValueError(str(error)) from None
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {twice[0]} twice")
        # absolute, so that it is the same directory in every process
        return tuple(
            str(Path(text).expanduser().resolve()) if is_plain_path(text) else text for text in value
        )

    @field_validator("source_access", mode="after")
    @classmethod
    def _source_access(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                parse_destination(text)
            except BadDestinationUrl as error:
                raise ValueError(str(error).replace("destination ", "bucket ", 1)) from None
        return value

    @field_validator("own_paths", mode="after")
    @classmethod
    def _own_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _PREFIX_URL.fullmatch(text):
                raise ValueError(
                    "each is a storage path with its scheme and no query, such as s3://my-bucket/hms"
                )
        return value

    @field_validator("key_template", mode="after")
    @classmethod
    def _key_template(cls, value: str) -> str:
        check_template(value)
        return value

    @field_validator("state_dir", mode="after")
    @classmethod
    def _state_dir(cls, value: Path) -> Path:
        return value.expanduser().resolve()  # the same directory in every process

    @field_validator("ca_file", mode="after")
    @classmethod
    def _ca_file(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        path = value.expanduser().absolute()  # not resolved: what a link leads to may be replaced
        try:
            trust.CaFile(variable("ca_file"), path).certificates()
        except trust.UnusableCaFile as error:
            raise ValueError(error.what) from None
        return path

    @field_validator("hms_access_key", "hms_secret", "hms_management_token", mode="after")
    @classmethod
    def _one_word(cls, value: SecretStr | str | None) -> SecretStr | str | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text is not None and (not text.isascii() or not text.isprintable() or " " in text):
            raise ValueError("holds a space, a line break or a letter that is not ASCII; copy it again")
        return value

    @field_validator("hms_api_url", mode="after")
    @classmethod
    def _api_url(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            good = False
        if not good or "@" in url.netloc or "?" in value or "#" in value or any(c.isspace() for c in value):
            raise ValueError("is no plain http(s) URL: no user, no query; example " + DEFAULT_API_URL)
        return value.rstrip("/")

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            url = urlsplit(value.get_secret_value())
            good = url.scheme in ("redis", "rediss") and bool(url.hostname) and url.port != 0
        except ValueError:
            good = False
        if not good or not re.fullmatch(r"(/\d*)?", url.path):
            raise ValueError(
                "is no Redis URL: redis://[:password@]host:6379/0, or rediss:// for TLS; in the password write "
                "%40 for @, %2F for /, %23 for #, %3F for ?"
            )
        return value

    @field_validator("part_bytes", mode="after")
    @classmethod
    def _part_bytes(cls, value: ByteSize) -> ByteSize:
        if value % (256 * 2**10):
            raise ValueError("is no multiple of 256KiB, as Google Cloud Storage wants it")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _log_level(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_format", "vod_zip", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("flower_basic_auth", mode="after")
    @classmethod
    def _flower_basic_auth(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[^:\s,]+:[^\s,]+", value.get_secret_value()):
            raise ValueError("is not user:password (no spaces, no commas)")
        return value

    # -- relations between settings ------------------------------------------------------------------------
    @model_validator(mode="after")
    def _relations(self) -> Self:
        wrong = list(self._broken_relations())
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _broken_relations(self) -> Iterable[str]:
        if self.hms_access_key is not None and self.hms_secret is None:
            yield "HMS_SECRET: is missing; HMS_ACCESS_KEY is given, and needs the app secret beside it"
        if self.hms_secret is not None and self.hms_access_key is None:
            yield "HMS_ACCESS_KEY: is missing; HMS_SECRET is given, and needs the app access key beside it"
        url = urlsplit(self.hms_api_url)
        if url.scheme == "http" and not (_is_loopback(url.hostname or "") or self.allow_private_sources):
            yield (
                "HMS_API_URL: is http, which would show the token to everybody on the way; write https (or set "
                "ARCHIVER_ALLOW_PRIVATE_SOURCES=true for a test in a private network)"
            )
        if self.retry_base_seconds > self.retry_max_seconds:
            yield (
                f"ARCHIVER_RETRY_BASE_SECONDS: {self.retry_base_seconds} is more than ARCHIVER_RETRY_MAX_SECONDS "
                f"({self.retry_max_seconds})"
            )
        if self.sweep_every >= self.retention:
            yield (
                f"ARCHIVER_SWEEP_SECONDS: {self.sweep_seconds} is not less than ARCHIVER_RETENTION_DAYS "
                f"({self.retention_days:g}); an asset could come and go between two sweeps"
            )
        if self.transfer_memory_bytes < 4 * self.part_bytes:
            yield (
                "ARCHIVER_TRANSFER_MEMORY: has no room for four parts of ARCHIVER_PART_BYTES; give at least "
                f"{ByteSize(4 * self.part_bytes).human_readable()}"
            )


def variable(field_name: str) -> str:
    """The environment variable of a field."""
    alias = Settings.model_fields[field_name].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field_name.upper()


def variables() -> dict[str, str]:
    """Field names by their variables, in the order of the class."""
    return {variable(name): name for name in Settings.model_fields}


def load_settings(env_file: Path = Path(".env")) -> Settings:
    """The settings of this process, or SettingsError. Repeatable.

    Whatever else `.env` holds (AWS_*, GOOGLE_APPLICATION_CREDENTIALS, proxies) is put into `os.environ` unless it is
    there already, because the cloud SDKs look nowhere else; so is ARCHIVER_CA_FILE, for whoever opens a destination.
    What Kubernetes injects under the name of a setting, of ours or of Flower's, is taken out of it.
    """
    _remove_service_links()
    try:
        in_file = dotenv_values(env_file, encoding="utf-8-sig") if env_file.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{env_file} cannot be read: {reason}") from None
    wrong, odd = _unknown({**in_file, **os.environ})
    try:
        settings = Settings(_env_file=env_file if in_file else None)
    except ValidationError as error:
        wrong += _explained(error)
    if wrong:
        raise SettingsError(
            f"The settings (environment, or {env_file}) cannot be used:\n"
            + "\n".join(f"  {line}" for line in wrong)
            + "\n.env.example explains each."
        )
    settings._warnings = tuple(odd)  # noqa: SLF001  (its own module)
    for name, value in in_file.items():
        if value and not _OUR_NAMES.match(name):
            os.environ.setdefault(name, value)
    if settings.ca_file is not None:
        os.environ[trust.SETTING] = str(settings.ca_file)  # destinations look there, and child processes
    _check_authorities(settings)
    return settings


def _remove_service_links() -> None:
    """A number in FLOWER_PORT is somebody's choice; a service's address is not."""
    for name, value in list(os.environ.items()):
        if _SERVICE_PORT.fullmatch(name) and _SERVICE_ADDRESS.fullmatch(value):
            del os.environ[name]


def _check_authorities(settings: Settings) -> None:
    """Raises SettingsError for a file of authorities that would be used and cannot be."""
    schemes = {parse_destination(text).scheme for text in settings.destinations}
    also: dict[str, str | None] = {}
    if "s3" in schemes:
        also |= trust.of_aws(os.environ.get("AWS_CA_BUNDLE"))
    if "gs" in schemes:
        also |= trust.of_requests()
    try:
        trust.authorities(settings.ca_file, also=also)
    except trust.UnusableCaFile as error:
        raise SettingsError(str(error)) from None


def _unknown(given: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names that look like ours and are none: misspelt ones (an error: ARCHIVER_DESTINATION would copy everything to
    the wrong place) and foreign ones (a warning: a compose file or an older version may know them)."""
    known = {_OUR_NAMES.sub("", name, count=1): name for name in variables()}
    wrong, odd = [], []
    ours = {name.upper() for name in given if _OUR_NAMES.match(name)} - set(known.values())
    for name in sorted(name for name in ours if not _SERVICE_LINK.fullmatch(name)):
        bare = _OUR_NAMES.sub("", name, count=1)
        close = difflib.get_close_matches(bare, known, n=1, cutoff=_TYPO)
        if close:
            wrong.append(f"{name}: there is no such setting; did you mean {known[close[0]]}?")
        else:
            [nearest] = difflib.get_close_matches(name, known.values(), n=1, cutoff=0)
            odd.append(f"{name} is set, and no setting of this version; the nearest is {nearest}")
    return wrong, odd


def _explained(error: ValidationError) -> list[str]:
    lines: list[str] = []
    names = variables()
    for problem in error.errors(include_url=False, include_input=False):
        ours = problem.get("ctx", {}).get("error")  # says itself what would be right
        if not problem["loc"]:
            lines += str(ours).splitlines()
            continue
        place = str(problem["loc"][0])
        name = place if place in names else variable(place)
        if ours is not None:
            lines.append(f"{name}: {ours}")
        else:
            # pydantic's own words for it say what the parser did
            said = "a size such as 256MiB" if problem["type"] == "byte_size" else problem["msg"]
            what = said.removeprefix("Input should be ").removeprefix("Value should be ")
            lines.append(f"{name}: must be {what}. It is: {Settings.model_fields[names[name]].description}")
    return lines


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
