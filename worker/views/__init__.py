"""What people see in a terminal (rich) and programs get as JSON.

Imports the core's models and `worker.logs.escaping`; reads no settings and no ledger.
"""
