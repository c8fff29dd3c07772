"""The thumbnails of an asset: their names, their sources, and URLs from webhooks.

May import what archiver.core.contents may, its root, and archiver.ledger.
"""
