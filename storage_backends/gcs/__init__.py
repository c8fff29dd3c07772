"""Google Cloud Storage.

May import archiver.http and the modules of storage_backends that know no vendor.
"""

from storage_backends.gcs.backend import GcsBackend, open_backend
from storage_backends.gcs.upload import MULTIPLE_BYTES, GcsUpload

__all__ = ["MULTIPLE_BYTES", "GcsBackend", "GcsUpload", "open_backend"]
