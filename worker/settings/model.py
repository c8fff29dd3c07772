"""All groups as one model, and what must hold between their settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self
from urllib.parse import urlsplit

from pydantic import ByteSize, PrivateAttr, model_validator

from archiver.hms.models import AssetType
from worker.settings.account import AccountSettings
from worker.settings.alerting import AlertSettings
from worker.settings.destinations import DestinationSettings
from worker.settings.discovery import DiscoverySettings
from worker.settings.events import EventSettings
from worker.settings.group import PREFIX, is_loopback
from worker.settings.limits import LimitSettings
from worker.settings.network import NetworkSettings
from worker.settings.observability import ObservabilitySettings
from worker.settings.scheduling import SchedulingSettings
from worker.settings.serving import ServeSettings
from worker.settings.state import StateSettings
from worker.settings.statements import StatementSettings
from worker.settings.transfer import TransferSettings
from worker.settings.verification import VerificationSettings


class Settings(  # pydantic takes the fields of the last base first
    ServeSettings,
    EventSettings,
    AlertSettings,
    ObservabilitySettings,
    NetworkSettings,
    StateSettings,
    StatementSettings,
    VerificationSettings,
    LimitSettings,
    TransferSettings,
    SchedulingSettings,
    DiscoverySettings,
    DestinationSettings,
    AccountSettings,
):
    """Use `load_settings` in the product. In tests: `Settings(_env_file=None, destinations=..., ...)`, by field name.

    Nothing is required: without credentials `archiver verify` still works.
    """

    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what looks wrong but is accepted, a sentence each, for the log and `doctor`."""
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

    @model_validator(mode="after")
    def _relations(self) -> Self:
        wrong = list(self._broken_relations())
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _broken_relations(self) -> Iterable[str]:
        if self.quorum is not None and self.quorum > len(self.destinations):
            yield (
                f"ARCHIVER_QUORUM: {self.quorum} is more than the {len(self.destinations)} of ARCHIVER_DESTINATIONS: "
                "nothing would ever be archived"
            )
        if self.hms_access_key is not None and self.hms_secret is None:
            yield "HMS_SECRET: is missing; HMS_ACCESS_KEY is given, and needs the app secret beside it"
        if self.hms_secret is not None and self.hms_access_key is None:
            yield "HMS_ACCESS_KEY: is missing; HMS_SECRET is given, and needs the app access key beside it"
        if self.event_url is not None and self.event_secret is None:
            yield "ARCHIVER_EVENT_SECRET: is missing; ARCHIVER_EVENT_URL is given, and events must be signed"
        url = urlsplit(self.hms_api_url)
        if url.scheme == "http" and not (is_loopback(url.hostname or "") or self.allow_private_sources):
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
    """Field names by their environment variables, in the order of the groups."""
    return {variable(name): name for name in Settings.model_fields}
