"""The options of a gs:// destination URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage_backends.base import ObjectSpec
from storage_backends.destination_url import DestinationUrl
from storage_backends.errors import BadDestinationUrl
from storage_backends.labels import NONE as NO_LABELS
from storage_backends.labels import Labelling, labelling

METADATA_ID = "archiverupload"
OPTIONS = ("acl", "kms_key_name", "metadata", "storage_class", "user_project")
"""All of them; docs/storage-backends.md describes each."""

STORAGE_CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
COLD_CLASSES = ("COLDLINE", "ARCHIVE")
"""They are read at once, for a fee by the GiB that is a multiple of what the object costs in a month."""

_ACLS = (
    "authenticatedRead", "bucketOwnerFullControl", "bucketOwnerRead", "private", "projectPrivate", "publicRead",
)  # fmt: skip
_KEY = r"projects/[^/?#\s]+/locations/[^/?#\s]+/keyRings/[^/?#\s]+/cryptoKeys/[^/?#\s]+"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_MOST_METADATA = 10


@dataclass(frozen=True, slots=True)
class GcsSettings:
    bucket: str
    prefix: str = ""
    acl: str | None = None
    kms_key_name: str | None = None
    metadata: Labelling = NO_LABELS
    storage_class: str | None = None  # of media only
    user_project: str | None = None

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of every request that creates an object."""
        named = {
            "kmsKeyName": self.kms_key_name,
            "predefinedAcl": self.acl,
            "userProject": self.user_project,
        }
        return {name: value for name, value in named.items() if value is not None}

    def resource(self, spec: ObjectSpec, identity: str, name: str) -> dict[str, Any]:
        """Return a new object as the API describes it."""
        resource = {
            "name": name,
            "contentType": spec.content_type,
            "metadata": {**self.metadata.of(spec), **spec.metadata, METADATA_ID: identity},
        }
        if spec.media and self.storage_class is not None:
            resource["storageClass"] = self.storage_class
        return resource


def settings_of(url: DestinationUrl) -> GcsSettings:
    """Parse `gs://bucket/prefix` with OPTIONS. Sends no request. Raises BadDestinationUrl."""
    url.only_options(OPTIONS)
    if not url.bucket:
        raise BadDestinationUrl("a gs destination names a bucket: gs://bucket/prefix")
    if not _BUCKET.fullmatch(url.bucket):
        raise BadDestinationUrl(f"destination {url.name}: {url.bucket!r} is not a valid bucket name")
    return GcsSettings(
        url.bucket,
        url.prefix,
        acl=url.one_of("acl", _ACLS),
        kms_key_name=url.matching(
            "kms_key_name", _KEY, "projects/P/locations/L/keyRings/R/cryptoKeys/K of a key"
        ),
        metadata=labelling(url, "metadata", most=_MOST_METADATA, reserved=(METADATA_ID,), plain_names=True),
        storage_class=url.one_of("storage_class", STORAGE_CLASSES),
        user_project=url.matching("user_project", r"[a-z0-9][a-z0-9.:-]{4,62}", "the id of a project"),
    )
