"""The Celery tasks: each calls one method of archiver.core and tells Celery the outcome.

May import archiver; worker wires it.
"""
