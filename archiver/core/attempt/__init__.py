"""One attempt at one asset: lease, copy, verify, commit, decide what the outcome is.

May import contents, destinations and records; upkeep imports it, not the other way round.
"""
