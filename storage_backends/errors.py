"""Errors of storage backends.

    StorageError                      fields: store, key, operation, status, retry_after
    ├── DestinationRefuses            do not retry until a person acts; the circuit breaker of this destination opens
    │   ├── AccessDenied              credentials are wrong, expired, or lack a permission
    │   │   └── CredentialsMissing    no credentials were found, or they cannot be read; no request was sent
    │   ├── BucketMissing             no such bucket, or the directory does not exist
    │   └── DestinationFull           disk or quota is full
    ├── TransientStorageError         retry: 5xx, 429, timeouts, a broken connection, clock skew
    ├── ObjectExists                  conditional create: the key is taken
    ├── ObjectChanged                 conditional replace or read: the key holds another object, or none
    ├── ObjectMissing                 read: no object at this key
    ├── ObjectCold                    read: the object is in a storage class that must be restored first
    ├── UploadGone                    the store does not know the upload (any more): restart it
    ├── ChecksumRejected              the store received other bytes than were sent: send them again
    └── InvalidKey                    the key breaks a rule of this store: a defect of ours

    BadDestinationUrl (ValueError)    a destination URL cannot be used: the person who wrote it fixes it

A plain StorageError is a request that will fail again as it is. Messages name the operation, the key, and the store's
status, code and request id; never a credential, an upload token or a URL's query.
"""

from __future__ import annotations

from datetime import timedelta


class StorageError(Exception):
    """Anything a backend raises; vendor errors never leave a backend.

    `store` is the backend's name, `operation` the method of the contract, `status` the HTTP status of the answer,
    `retry_after` what the store asked for. Each is None where it is not known, also on errors of backends that pass a
    message only.
    """

    store: str | None = None
    key: str | None = None
    operation: str | None = None
    status: int | None = None
    retry_after: timedelta | None = None

    def __init__(
        self,
        *message: object,
        store: str | None = None,
        key: str | None = None,
        operation: str | None = None,
        status: int | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(*message)
        self.store = store
        self.key = key
        self.operation = operation
        self.status = status
        self.retry_after = retry_after


class DestinationRefuses(StorageError):
    """The destination accepts nothing until a person acts; trying other assets does not help."""


class AccessDenied(DestinationRefuses):
    """Credentials are wrong, expired, or lack the permission."""


class CredentialsMissing(AccessDenied):
    """No credentials were found where the SDK looks for them, or they cannot be read. No request was sent."""


class BucketMissing(DestinationRefuses):
    """The bucket (or the directory that a destination names) does not exist."""


class DestinationFull(DestinationRefuses):
    """No space or quota left."""


class TransientStorageError(StorageError):
    """The store could not answer now; the same call may succeed later."""


class ObjectExists(StorageError):
    """A conditional create found the key taken."""


class ObjectChanged(StorageError):
    """A conditional replace or read found another object than expected, or none."""


class ObjectMissing(StorageError):
    """A read named a key that does not exist."""


class ObjectCold(StorageError):
    """The object is in a storage class (Glacier, Deep Archive) that cannot be read before a restore."""


class UploadGone(StorageError):
    """The store does not know this upload (aborted, expired, completed by someone else)."""


class ChecksumRejected(StorageError):
    """The bytes that arrived do not match the checksum that was sent; sending them again may succeed."""


class InvalidKey(StorageError):
    """The object key breaks a rule that all stores share; a defect of ours, never of the data."""


class BadDestinationUrl(ValueError):
    """A destination URL cannot be used; the message says which part and what would be right."""
