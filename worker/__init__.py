"""Processes: wiring, command line, Celery application, logging.

May import everything; only an entry point imports it.
"""
