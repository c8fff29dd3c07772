"""What can go wrong at a destination.

    StorageError                      what we were doing, to which key, what the store answered
    ├── DestinationRefuses            not worth trying again until a person acts; the line to this destination stops
    │   ├── AccessDenied              credentials wrong, expired, or not allowed to
    │   │   └── CredentialsMissing    none were found, or they cannot be read: nothing was asked
    │   ├── BucketMissing             no such bucket, or the directory is not there
    │   └── DestinationFull           disk or quota is full
    ├── TransientStorageError         worth trying again: 5xx, 429, timeouts, a cut connection, clock skew
    ├── ObjectExists                  a conditional create lost: the key is taken
    ├── ObjectChanged                 a conditional replace lost: another object, or none, is there by now
    ├── ObjectMissing                 read of a key that is not there
    ├── UploadGone                    the upload to resume or complete is not known to the store (any more): begin again
    ├── ChecksumRejected              the store received other bytes than we sent: send them again
    └── InvalidKey                    our own fault: the key breaks a rule of this store

Messages name the operation, the key, and the store's status, code and request id; never a credential,
an upload token or a URL's query.
"""

from __future__ import annotations


class StorageError(Exception):
    """Anything a backend raises. Vendor errors never leave a backend."""


class DestinationRefuses(StorageError):
    """The destination as a whole will not work until a person acts; trying other assets is no use."""


class AccessDenied(DestinationRefuses):
    """Credentials are missing, wrong, expired, or lack the permission."""


class CredentialsMissing(AccessDenied):
    """No credentials were found where the SDK looks for them, or they cannot be read. Nothing was asked."""


class BucketMissing(DestinationRefuses):
    """The bucket (or the directory a destination names) does not exist."""


class DestinationFull(DestinationRefuses):
    """No space or quota left."""


class TransientStorageError(StorageError):
    """The store could not answer now; the same call may succeed later."""


class ObjectExists(StorageError):
    """A conditional create found the key taken."""


class ObjectChanged(StorageError):
    """A conditional replace found another object than the one it was to replace, or none."""


class ObjectMissing(StorageError):
    """A read named a key that does not exist."""


class ObjectCold(StorageError):
    """The object is archived in a class (Glacier, Deep Archive, an archive tier) that cannot be read as it is."""


class UploadGone(StorageError):
    """The store does not know this upload (aborted, expired, completed by someone else)."""


class ChecksumRejected(StorageError):
    """The bytes that arrived are not those we computed the checksum of; sending them again may succeed."""


class InvalidKey(StorageError):
    """The object key breaks a rule that all stores share; a defect of ours, never of the data."""


class BadDestinationUrl(ValueError):
    """A destination URL cannot be used; the message says which part and what would be right."""
