"""S3 and its compatibles.

May import archiver.http and the modules of storage_backends that know no vendor.
"""

from storage_backends.s3.backend import S3Backend, open_backend
from storage_backends.s3.settings import S3Settings
from storage_backends.s3.upload import S3Upload

__all__ = ["S3Backend", "S3Settings", "S3Upload", "open_backend"]
