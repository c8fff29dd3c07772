"""The checks of `archiver doctor`, and how to fix what each one finds.

Imports the core, the API client, the ledger and storage; prints nothing itself.
"""
