"""Check the rights that a destination's credentials have: what is missing, and what is more than needed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from archiver.core.records import keys
from storage_backends.base import StorageBackend
from storage_backends.errors import CredentialsMissing, StorageError
from storage_backends.optional import Right, rights_of
from worker.doctor.check_result import CheckResult, Verdict

POLICIES = {"s3": "deploy/policies/s3-worker.json", "gs": "deploy/policies/gcs-worker.yaml"}


def check_rights(store: StorageBackend) -> Iterator[CheckResult]:
    """Name each right that is missing. Nothing for a store that cannot tell, or whose credentials are missing, which
    other checks report."""
    tells = rights_of(store)
    if tells is None:
        return
    rights: list[Right] = []
    all_tried = False
    try:
        rights += tells.rights(keys.probe_key(secrets.token_hex(16)))
        all_tried = True
    except CredentialsMissing:
        return
    except StorageError as error:
        what = f"not all of its rights could be tried: {error}"
        yield CheckResult(store.name, Verdict.WARNING, what, "Run `archiver doctor` again later.")
    policy = POLICIES.get(store.name.partition(":")[0], "docs/storage-backends.md")
    missing = [right for right in rights if right.granted is False and right.needed_for]
    for right in missing:
        yield CheckResult(
            store.name,
            Verdict.PROBLEM if right.is_essential else Verdict.WARNING,
            f"lacks {right.action}, which is for {right.needed_for}",
            f"Allow it: {policy} has all that is needed (for options of the destination: Permissions in "
            "docs/storage-backends.md).",
        )
    if rights and all_tried and not missing:
        what = "has every right that the archiver needs, as far as can be tried"
        yield CheckResult(store.name, Verdict.OK, what)
    excess = [right.action for right in rights if right.granted and not right.needed_for]
    if excess:
        what = f"has rights that the archiver does not need: {', '.join(excess)}"
        yield CheckResult(store.name, Verdict.WARNING, what, f"{policy} is enough.")
