"""One contract for stores, and its backends: S3, GCS, directory, memory.

May import archiver.http only.
"""
