"""The parts and options of an Azure destination URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from storage_backends.destination_url import CREDENTIALS_HELP, DestinationUrl
from storage_backends.errors import BadDestinationUrl
from storage_backends.labels import NONE as NO_LABELS
from storage_backends.labels import Labelling, labelling

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
ACCESS_TIERS = ("Hot", "Cool", "Cold", "Archive")
COLD_TIERS = ("Cold", "Archive")
"""The first is read at once, for a fee by the GiB that is a multiple of what the blob costs in a month; the other not
before it was rehydrated."""
OPTIONS = ("endpoint_url", "metadata", "storage_class")
METADATA_ID = "archiverupload"
METADATA_CRC32C, METADATA_MD5 = "archivercrc32c", "archivermd5"
_MOST_METADATA = 10


@dataclass(frozen=True, slots=True)
class AzureSettings:
    account: str
    container: str
    prefix: str = ""
    endpoint_url: str | None = None  # of the account's blob service; None: Azure's public cloud
    storage_class: str | None = None  # access tier of media; None: the account's default
    metadata: Labelling = NO_LABELS

    @property
    def url(self) -> DestinationUrl:
        options = {} if self.endpoint_url is None else {"endpoint_url": self.endpoint_url}
        return DestinationUrl("az", self.account, f"{self.container}/{self.prefix}".rstrip("/"), options)


def settings_of(url: DestinationUrl) -> AzureSettings:
    """Parse `az://account/container/prefix`, with `endpoint_url` and `storage_class` (an access tier) as options.
    Raises BadDestinationUrl."""
    url.only_options(OPTIONS)
    container, _, prefix = url.prefix.partition("/")
    if not url.bucket or not container:
        raise BadDestinationUrl(
            "an az destination names an account and a container: az://account/container/prefix"
        )
    if not _ACCOUNT.fullmatch(url.bucket):
        raise BadDestinationUrl(
            f"destination {url.name}: {url.bucket!r} is not a storage account's name (3 to 24 lower-case letters and "
            "digits, without .blob.core.windows.net)"
        )
    if not _CONTAINER.fullmatch(container):
        raise BadDestinationUrl(
            f"destination {url.name}: {container!r} is not a container's name (3 to 63 lower-case letters, digits and "
            "single hyphens)"
        )
    endpoint_url = url.options.get("endpoint_url")
    if endpoint_url is not None:
        _check_endpoint(endpoint_url, url.name)
        endpoint_url = endpoint_url.rstrip("/")
    asked = url.options.get("storage_class")
    tiers = {tier.lower(): tier for tier in ACCESS_TIERS}
    if asked is not None and asked.lower() not in tiers:
        raise BadDestinationUrl(f"destination {url.name}: storage_class is one of {', '.join(ACCESS_TIERS)}")
    tier = None if asked is None else tiers[asked.lower()]
    ours = (METADATA_ID, METADATA_CRC32C, METADATA_MD5)
    metadata = labelling(url, "metadata", most=_MOST_METADATA, reserved=ours, plain_names=True)
    return AzureSettings(url.bucket, container, prefix, endpoint_url, tier, metadata)


def _check_endpoint(endpoint_url: str, name: str) -> None:
    wrong = (
        f"destination {name}: endpoint_url is the address of the account's blob service, such as "
        "https://account.blob.core.chinacloudapi.cn"
    )
    try:
        split = urlsplit(endpoint_url)
        host, _ = split.hostname, split.port
    except ValueError:
        raise BadDestinationUrl(wrong) from None
    if "@" in split.netloc:
        raise BadDestinationUrl(f"destination {name}, endpoint_url: {CREDENTIALS_HELP}")
    if split.scheme not in ("http", "https") or not host or split.query or split.fragment:
        raise BadDestinationUrl(wrong)
