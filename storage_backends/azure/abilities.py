"""What Azure offers beyond the contract: signed URLs, and blobs brought back from the archive tier."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from azure.storage.blob import BlobSasPermissions, StandardBlobTier, generate_blob_sas

from storage_backends.azure.connection import Connection
from storage_backends.azure.credentials import Identity, SharedKey
from storage_backends.errors import AccessDenied
from storage_backends.optional import Thaw

LONGEST_SIGNATURE = timedelta(days=7)  # of a user delegation key; a key of the account would have no limit
_CLOCKS_DIFFER = timedelta(minutes=15)
READY_WITHIN = timedelta(hours=15)
"""https://learn.microsoft.com/azure/storage/blobs/archive-rehydrate-overview: standard priority. The high one,
within an hour, costs ten times as much and is not asked for."""
_ARCHIVE = "Archive"


def signed_url(connection: Connection, blob: Any, lifetime: timedelta, now: datetime | None = None) -> str:
    """Return a URL to read one blob by. A SECRET. Raises AccessDenied, and azure.core's errors."""
    now = now or datetime.now(UTC)
    signing: dict[str, Any]
    match connection.credential:
        case SharedKey() as key:
            signing = {"account_key": key.of_sdk.named_key.key}
        case Identity():
            delegated = connection.service.get_user_delegation_key(now - _CLOCKS_DIFFER, now + lifetime)
            signing = {"user_delegation_key": delegated}
        case _:
            raise AccessDenied(
                "a shared access signature cannot sign another one: set AZURE_STORAGE_KEY or a connection string with "
                "a key, or use an identity"
            )
    token = generate_blob_sas(
        blob.account_name,
        blob.container_name,
        blob.blob_name,
        permission=BlobSasPermissions(read=True),
        start=now - _CLOCKS_DIFFER,
        expiry=now + lifetime,
        **signing,
    )
    return f"{blob.url}?{token}"


def state_of(properties: Any) -> Thaw:
    """Return whether a blob can be read. In Azure it stays readable once it was brought back."""
    tier = str(getattr(properties.blob_tier, "value", properties.blob_tier) or "Hot")
    if tier != _ARCHIVE:
        return Thaw(tier)
    return Thaw(tier, ready_within=READY_WITHIN)


def is_under_way(properties: Any) -> bool:
    return bool(properties.archive_status)


def rehydrate(blob: Any) -> None:
    """Raises azure.core's errors."""
    blob.set_standard_blob_tier(StandardBlobTier.HOT, rehydrate_priority="Standard")
