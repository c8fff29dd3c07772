"""An HLS tree, walked from its master playlist (RFC 8216).

May import what archiver.core.contents may, and its root.
"""
