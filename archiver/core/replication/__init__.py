"""Bring copies to the destinations that lack them or hold them damaged, from a destination that holds them whole.

May import attempt, records and upkeep; nothing in the core imports it.
"""
