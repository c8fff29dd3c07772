"""What lies in the bucket beside the files: manifests, end and check records; their keys, and how they are verified.

May import archiver.ledger and storage_backends; nothing else of archiver.core but its root.
"""
