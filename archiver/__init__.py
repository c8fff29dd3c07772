"""The library: what it means that a recording is archived, and all that it takes.

worker > tasks > core > transfer > hms : storage_backends : ledger > http. `simulator` imports none of them.
"""
