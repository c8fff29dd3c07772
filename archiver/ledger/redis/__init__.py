"""The ledger in Redis or Valkey: one class per Protocol of `ledger.base`, and `ledger.py` that joins them.

May import archiver.http and the plain modules of archiver.ledger.
"""
