"""`archiver serve`: the alert loop, and health, webhooks and metrics over HTTP, in one process outside of Celery.

May import archiver.core, worker.alerts, worker.settings and the wiring.
"""
