"""Everything on one machine: the supervisor of `archiver up` and `archiver demo`, and the Valkey that it brings.

Imports the commands of `worker.celery_setup`, and nothing of the command line.
"""
