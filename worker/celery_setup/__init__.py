"""Celery's settings, beat's schedule and the command of every process. The application itself is `worker.app`.

Imports the names of `tasks` and Celery; nothing that copies.
"""
