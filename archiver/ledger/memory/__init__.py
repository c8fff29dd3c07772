"""The ledger in the memory of one process: one class per Protocol of `ledger.base`, and `ledger.py` that joins them.

May import the plain modules of archiver.ledger.
"""
