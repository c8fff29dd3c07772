"""Azure Blob Storage.

May import archiver.http, archiver.retry_policy and the modules of storage_backends that know no vendor.
"""

from storage_backends.azure.backend import AzureBackend, open_backend
from storage_backends.azure.settings import AzureSettings
from storage_backends.azure.upload import AzureUpload

__all__ = ["AzureBackend", "AzureSettings", "AzureUpload", "open_backend"]
