"""Which store is which: its marker, its circuit breaker, what it refuses.

May import records, archiver.ledger and storage_backends.
"""
