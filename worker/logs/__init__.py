"""Logs: set-up, redaction of secrets, escaping of control characters. Every text that leaves the process passes here.

Imports `worker.settings` and nothing else of ours.
"""
