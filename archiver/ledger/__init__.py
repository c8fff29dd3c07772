"""Operational state: which assets are known, due, leased and done. Redis, or memory for tests.

May import archiver.http only.
"""
