"""Everything on one machine: the supervisor of `archiver up` and `archiver demo`, and the embedded Valkey.

Imports the commands of `worker.celery_setup`, and nothing of the command line.
"""
