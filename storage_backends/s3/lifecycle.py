"""Lifecycle rules of a bucket, and those that delete objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from storage_backends.errors import BucketMissing, TransientStorageError
from storage_backends.operation import Operation
from storage_backends.optional import ExpiryRule
from storage_backends.s3.bucket import Bucket
from storage_backends.s3.errors import code_of, kind_of, translated


def rules_of(bucket: Bucket, operation: str) -> Sequence[Mapping[str, Any]] | None:
    """None where they may not be read, or the server has none. Raises StorageError."""
    with translated(Operation(operation, bucket.name, None, "reading the lifecycle rules")):
        try:
            answer = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.bucket)
        except ClientError as error:
            if code_of(error) == "NoSuchLifecycleConfiguration":
                return []
            if kind_of(error) in (BucketMissing, TransientStorageError):
                raise
            return None
    rules: Sequence[Mapping[str, Any]] = answer.get("Rules", [])
    return rules


def expiry_rules(rules: Iterable[Mapping[str, Any]], prefix: str) -> list[ExpiryRule]:
    """Return the rules that delete current objects under `prefix`. One by tag or size counts: it may reach them."""
    found = []
    for rule in rules:
        expiration = rule.get("Expiration", {})
        if rule.get("Status") != "Enabled" or not {"Days", "Date"} & set(expiration):
            continue
        chosen = rule.get("Filter", {})
        wanted = str(chosen.get("Prefix", chosen.get("And", {}).get("Prefix", rule.get("Prefix", ""))))
        if not (wanted.startswith(prefix) or prefix.startswith(wanted)):
            continue
        days = expiration.get("Days")
        if days is None:  # on a date it deletes what is there, and from then on everything at once
            days = (
                0
                if expiration["Date"] <= datetime.now(UTC)
                else (expiration["Date"] - datetime.now(UTC)).days
            )
        rest = wanted.removeprefix(prefix) if wanted.startswith(prefix) else ""
        found.append(ExpiryRule(str(rule.get("ID", "without a name")), rest, int(days)))
    return found
