"""A directory as a destination. May import the modules of storage_backends that know no vendor."""

from storage_backends.filesystem.backend import FilesystemBackend, open_backend
from storage_backends.filesystem.upload import FilesystemUpload

__all__ = ["FilesystemBackend", "FilesystemUpload", "open_backend"]
