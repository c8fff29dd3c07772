"""The thumbnails of an asset: which there are, how one is read, URLs that a webhook brought.

May import what archiver.core.contents may, its root, and archiver.ledger.
"""
