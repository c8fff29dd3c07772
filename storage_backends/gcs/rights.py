"""What the credentials may do in a bucket. Storage tells itself, in one answer.

https://cloud.google.com/storage/docs/json_api/v1/buckets/testIamPermissions
"""

from __future__ import annotations

from collections.abc import Iterator

from storage_backends.errors import AccessDenied, ObjectMissing
from storage_backends.gcs.bucket import ONCE, Bucket
from storage_backends.operation import Operation
from storage_backends.optional import Right

_RIGHTS = {
    "storage.objects.create": "storing",
    "storage.objects.get": "reading back and verifying",
    "storage.objects.list": "telling what is there",
    "storage.objects.delete": "replacing records, and removing probes",
}
_NOT_NEEDED = (
    "storage.objects.setIamPolicy", "storage.objects.update", "storage.buckets.delete", "storage.buckets.update",
    "storage.buckets.setIamPolicy",
)  # fmt: skip


def told(bucket: Bucket) -> Iterator[Right]:
    """Yield nothing where the account may do none of it in the whole bucket (a condition on the prefix), or where a
    server has no such question."""
    doing = Operation("rights", bucket.name, None, "asking for the rights")
    asked = [*_RIGHTS, *_NOT_NEEDED]
    try:
        may = bucket.retry(doing, lambda: bucket.handle().test_iam_permissions(asked, **ONCE))
    except (ObjectMissing, AccessDenied):
        return
    if not may:
        return
    for action, needed_for in _RIGHTS.items():
        yield Right(action, action in may, needed_for, is_essential=True)
    for action in _NOT_NEEDED:
        if not (bucket.settings.acl and action == "storage.objects.setIamPolicy"):
            yield Right(action, action in may)
