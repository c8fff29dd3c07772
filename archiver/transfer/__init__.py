"""Copy one object from a source to several stores at once: parts, retries, resumption, checksums.

May import storage_backends, archiver.ledger, archiver.hms and archiver.http.
"""
