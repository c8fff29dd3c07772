"""Records in the bucket beside the assets: manifests, end records, check records; their keys; verifying a copy.

May import archiver.ledger and storage_backends; nothing else of archiver.core but its root.
"""
