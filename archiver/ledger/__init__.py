"""Operational state: which assets are known, due, leased and done. `base` is the contract; Redis and memory keep it.

May import archiver.http only.
"""
