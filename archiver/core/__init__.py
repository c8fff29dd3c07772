"""What "archived" means: find assets, copy and verify them, keep records. Knows no Celery, boto3, google, redis
or curl.

May import archiver.transfer, archiver.hms, archiver.ledger and the contract of storage_backends.
"""
