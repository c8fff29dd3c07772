"""One contract for stores, and its backends: S3, GCS, Azure, directory, memory.

May import archiver.http and archiver.retry_policy only.
"""
