"""Bring archived assets back: find their copies, read and verify them, write them to a folder, link to them; and the
drill, which tries that.

Needs the destinations alone: no ledger, no 100ms API (the drill records in the ledger). May import everything in
archiver.core.
"""
