"""Does a destination refuse everything, or this one asset? A bucket policy may deny a single key."""

from __future__ import annotations

from contextlib import suppress

from storage_backends.base import ObjectSpec, StorageBackend, object_key
from storage_backends.errors import BucketMissing, DestinationFull, DestinationRefuses, StorageError
from transfer.checksums import crc32c

PROBE = object_key(
    "doctor/probe.txt"
)  # where `archiver doctor` writes too: the one folder that needs deletes
DATA = b"Written by the recording archiver to see whether it may. Delete it if you like.\n"


def refuses_everything(store: StorageBackend, refusal: DestinationRefuses) -> bool | None:
    """Whether the destination that answered `refusal` refuses to take a small object, or to give it back, as well. None
    when that cannot be told now. Nothing is left behind where deleting is allowed. May run many times at once."""
    if isinstance(
        refusal, BucketMissing | DestinationFull
    ):  # never about one key; a small one may still find room
        return True
    try:
        store.put(ObjectSpec(PROBE, "text/plain", len(DATA)), DATA, crc32c(DATA))
        store.read(PROBE, 0, len(DATA))
    except DestinationRefuses:
        return True
    except StorageError:
        return None
    finally:
        with suppress(StorageError):
            store.delete(PROBE)
    return False
